package nucleus

/*
#include <nucleus.h>
#include "flat.h"
*/
import "C"

import "unsafe"

// ParameterColumns is the number of columns of the array of PackParameters.
const ParameterColumns = C.NUC_PARAMETER_COLUMNS

// EmitOptions describe a function to embed. Set at least Rows and Vocab.
type EmitOptions struct {
	// Rows is the number of rows, 1 to 65536. Vocab is the number of elements per row, 1 to 16777216.
	Rows, Vocab int
	// MaxK is the number of slots of the bounded path, 1 to 1024. Default: 128.
	MaxK int
	// Target is `portable`, a TPU generation or a GPU model: see nuc_emit_options. Default: `portable`.
	Target string
	// Name is the name of the function. Default: `nucleus_sample`.
	Name  string
	DType DType
	// Path is the path of all rows. Default: the bounded path if Vocab <= MaxK and not KeepTies, else the arbitrary path.
	Path     Path
	KeepTies bool
	// DebugArrays selects the debug arrays that the function returns.
	DebugArrays DebugBits
}

func (o *EmitOptions) c(a *arena) (*C.nuc_emit_options, error) {
	return &C.nuc_emit_options{
		struct_size:  C.sizeof_nuc_emit_options,
		num_rows:     a.size("num_rows", o.Rows),
		vocab:        a.size("vocab", o.Vocab),
		max_k:        a.size("max_k", o.MaxK),
		target:       a.text("target", o.Target),
		name:         a.text("name", o.Name),
		dtype:        C.nuc_dtype(o.DType),
		path:         C.nuc_path(o.Path),
		keep_ties:    flag(o.KeepTies),
		debug_arrays: C.uint32_t(o.DebugArrays),
	}, a.err
}

// Emit returns the sampler as a StableHLO function in MLIR's text form, for a program of the caller. nucleus.h
// describes its arguments and results.
func Emit(options *EmitOptions) (string, error) {
	var a arena
	defer a.free()
	c, err := options.c(&a)
	if err != nil {
		return "", err
	}
	var length C.size_t
	err = call(func(e *C.nuc_error) C.nuc_status { return C.nuc_emit(c, nil, 0, &length, e) })
	if err != nil {
		return "", err
	}
	text := make([]byte, length+1)
	err = call(func(e *C.nuc_error) C.nuc_status {
		return C.nuc_emit(c, (*C.char)(unsafe.Pointer(&text[0])), C.size_t(len(text)), &length, e)
	})
	if err != nil {
		return "", err
	}
	return string(text[:length]), nil
}

// PackParameters returns the array of parameters that an embedded function takes, [rows, ParameterColumns]. options are
// those of Emit. batch has the parameters of the rows. Its Rows, Vocab and KeepTies must be those of the function or 0,
// and its Logits and RandomWords must be empty.
func PackParameters(options *EmitOptions, batch *Batch) ([]int32, error) {
	var a arena
	defer a.free()
	c, err := options.c(&a)
	if err != nil {
		return nil, err
	}
	b := *batch
	switch {
	case b.Logits.length != 0 || b.RandomWords != nil:
		return nil, invalid("batch", "has logits or random words; the function does not take them")
	case b.Rows != 0 && b.Rows != options.Rows:
		return nil, invalid("num_rows", "is %d; the function has %d rows", b.Rows, options.Rows)
	case b.Vocab != 0 && b.Vocab != options.Vocab:
		return nil, invalid("vocab", "is %d; the function has %d elements per row", b.Vocab, options.Vocab)
	case b.KeepTies && !options.KeepTies:
		return nil, invalid("keep_ties", "is not that of the function")
	}
	b.Rows = options.Rows
	if err := b.checkParameters(); err != nil {
		return nil, err
	}
	// The limit of the library. It is checked here so that a wrong number does not cause a large allocation.
	if b.Rows > 65536 {
		return nil, invalid("num_rows", "is %d; it must be at most 65536", b.Rows)
	}
	parameters := make([]int32, b.Rows*ParameterColumns)
	err = call(func(e *C.nuc_error) C.nuc_status {
		return C.nucleus_go_pack_parameters(c, (*C.int32_t)(unsafe.SliceData(b.TopK)),
			(*C.float)(unsafe.SliceData(b.TopP)),
			(*C.float)(unsafe.SliceData(b.MinP)), (*C.float)(unsafe.SliceData(b.Temperature)),
			(*C.uint64_t)(unsafe.SliceData(b.Seed)), (*C.uint64_t)(unsafe.SliceData(b.Offset)),
			(*C.int32_t)(unsafe.SliceData(parameters)), e)
	})
	if err != nil {
		return nil, err
	}
	return parameters, nil
}
