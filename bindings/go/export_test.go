package nucleus

import "unsafe"

// Pointer returns the nuc_sampler *, for calls from C in the benchmark.
func (s *Sampler) Pointer() unsafe.Pointer { return unsafe.Pointer(s.c) }
