package nucleus

/*
#include <nucleus.h>
#include "flat.h"
*/
import "C"

import (
	"math/bits"
	"unsafe"
)

// A DType is the type of logits.
type DType int32

const (
	// DTypeF32 is IEEE 754 binary32.
	DTypeF32 DType = C.NUC_DTYPE_F32
	// DTypeBF16 is bfloat16.
	DTypeBF16 DType = C.NUC_DTYPE_BF16
	// DTypeF16 is IEEE 754 binary16.
	DTypeF16 DType = C.NUC_DTYPE_F16
)

// A Path selects a sampling function.
type Path int32

const (
	// PathAuto selects a path for each row: nuc_topk_topp_and_sample.
	PathAuto Path = C.NUC_PATH_AUTO
	// PathArbitrary accepts every k: nuc_arbitrary_topk_topp_and_sample.
	PathArbitrary Path = C.NUC_PATH_ARBITRARY
	// PathBounded accepts k up to Options.MaxK: nuc_bounded_topk_topp_and_sample.
	PathBounded Path = C.NUC_PATH_BOUNDED
)

// A RowStatus consists of bits that describe a row.
type RowStatus uint32

const (
	// RowNoCandidate means that every logit of the row is -inf or NaN. The row's token is -1.
	RowNoCandidate RowStatus = C.NUC_ROW_NO_CANDIDATE
	// RowHadNaN means that the row contains a NaN, which counted as -inf.
	RowHadNaN RowStatus = C.NUC_ROW_HAD_NAN
	// RowHadInf means that the row contains a +inf, which counted as the largest finite float32.
	RowHadInf RowStatus = C.NUC_ROW_HAD_INF
	// RowBadParameter means that a parameter of the row is impossible. The row was not sampled. Its token is -1.
	RowBadParameter RowStatus = C.NUC_ROW_BAD_PARAMETER
)

// A Logits is a slice of logits with its type. F32, BF16 and F16 create it without a copy.
type Logits struct {
	dtype   DType
	pointer unsafe.Pointer
	length  int
}

// F32 returns logits of type float32.
func F32(values []float32) Logits {
	return Logits{DTypeF32, unsafe.Pointer(unsafe.SliceData(values)), len(values)}
}

// BF16 returns logits of type bfloat16. Each element contains the bits of a value.
func BF16(values []uint16) Logits {
	return Logits{DTypeBF16, unsafe.Pointer(unsafe.SliceData(values)), len(values)}
}

// F16 returns logits of type IEEE 754 binary16. Each element contains the bits of a value.
func F16(values []uint16) Logits {
	return Logits{DTypeF16, unsafe.Pointer(unsafe.SliceData(values)), len(values)}
}

// A Batch consists of logits and the sampling parameters of its rows. Set at least Logits, Rows and Vocab. The slices
// of parameters have one element per row. If a slice is nil, every row has the default.
type Batch struct {
	// Logits has the shape [Rows, Vocab], row-major. A NaN counts as -inf, +inf as the largest finite float32.
	Logits Logits
	// Rows is the number of rows. A call with 0 rows succeeds.
	Rows int
	// Vocab is the number of elements per row, 1 to 16777216.
	Vocab int
	// RowStride is the distance between the starts of two rows in elements. 0: Vocab.
	RowStride int
	// TopK keeps exactly k entries; the lower index wins a tie. k <= 0 or k >= Vocab: off. Default: off.
	TopK []int32
	// TopP keeps entries in descending order of weight until their sum is at least p times the total weight of the
	// entries that top-k kept. p >= 1: off. Default: off.
	TopP []float32
	// MinP keeps entries whose weight is at least min_p times the largest weight. min_p <= 0: off. Default: off.
	MinP []float32
	// Temperature is finite and at least 0. Below 1e-5 the row is greedy. Default: 1.
	Temperature []float32
	// RandomWords has one 128-bit number per row, the most significant word first. nil: the words are computed from Seed
	// and Offset.
	RandomWords [][4]uint32
	// Seed and Offset determine the random words of a row (Philox4x32-10). Change the offset at every step, for example to
	// the number of the step. Give each request its own seed. Rows with equal seed and offset use the same random number.
	// Default: 0. Both must be nil if RandomWords is not.
	Seed, Offset []uint64
	// KeepTies makes top-k keep every entry that ties with the threshold, which can be more than k.
	KeepTies bool
	// Path selects the sampling function. Default: PathAuto.
	Path Path
}

// checkLength compares the length of a slice with the length that its shape requires. nil is allowed if it is optional.
func checkLength(argument string, isNil bool, length, wanted int) error {
	if isNil || length == wanted {
		return nil
	}
	return invalid(argument, "has %d elements; it must have %d", length, wanted)
}

// elements returns the product of two sizes. It returns false if the product is not an int.
func elements(rows, columns int) (int, bool) {
	high, low := bits.Mul64(uint64(rows), uint64(columns))
	return int(low), high == 0 && int(low) >= 0
}

// checkParameters checks the lengths of the slices of parameters.
func (b *Batch) checkParameters() error {
	for _, slice := range [...]struct {
		argument string
		isNil    bool
		length   int
	}{
		{"top_k", b.TopK == nil, len(b.TopK)},
		{"top_p", b.TopP == nil, len(b.TopP)},
		{"min_p", b.MinP == nil, len(b.MinP)},
		{"temperature", b.Temperature == nil, len(b.Temperature)},
		{"random_words", b.RandomWords == nil, len(b.RandomWords)},
		{"seed", b.Seed == nil, len(b.Seed)},
		{"offset", b.Offset == nil, len(b.Offset)},
	} {
		if err := checkLength(slice.argument, slice.isNil, slice.length, b.Rows); err != nil {
			return err
		}
	}
	return nil
}

// check ensures that C accesses no element outside of a slice. The library checks all other properties of the batch.
func (b *Batch) check(tokens []int32, rowStatus []RowStatus) error {
	if b.Rows < 0 {
		return invalid("num_rows", "is %d; it must not be negative", b.Rows)
	}
	if b.Vocab < 0 {
		return invalid("vocab", "is %d; it must be at least 1", b.Vocab)
	}
	stride := b.RowStride
	if stride == 0 {
		stride = b.Vocab
	}
	if stride < b.Vocab {
		return invalid("row_stride", "is %d; it must be 0 or at least vocab, which is %d", stride, b.Vocab)
	}
	if b.Rows > 0 {
		before, fits := elements(b.Rows-1, stride)
		if needed := before + b.Vocab; !fits || needed < 0 || needed > b.Logits.length {
			return invalid("logits", "has %d elements; it must have at least (num_rows - 1) * row_stride + vocab elements, "+
				"with num_rows = %d, row_stride = %d and vocab = %d", b.Logits.length, b.Rows, stride,
				b.Vocab)
		}
	}
	if err := b.checkParameters(); err != nil {
		return err
	}
	if err := checkLength("tokens", false, len(tokens), b.Rows); err != nil {
		return err
	}
	return checkLength("row_status", rowStatus == nil, len(rowStatus), b.Rows)
}

// Sample chooses the next token of every row. tokens has one element per row. It receives the token of each row, or
// -1 if the row has none. rowStatus has one element per row and receives the bits of each row; it may be nil.
//
// With rowStatus, an impossible parameter affects only its own row: see RowBadParameter. Without it, the call returns
// an error that names the argument and the row.
//
// After an error, no output was written. Sample allocates no memory in Go.
func (s *Sampler) Sample(batch *Batch, tokens []int32, rowStatus []RowStatus) error {
	if err := batch.check(tokens, rowStatus); err != nil {
		return err
	}
	if !s.acquire() {
		return errClosed("sampler")
	}
	defer s.release()
	buffer := newErrorBuffer()
	return buffer.result(C.nuc_sample_flat(
		s.c, C.nuc_path(batch.Path), batch.Logits.pointer, C.nuc_dtype(batch.Logits.dtype),
		C.size_t(batch.Rows), C.size_t(batch.Vocab), C.size_t(batch.RowStride),
		(*C.int32_t)(unsafe.SliceData(batch.TopK)), (*C.float)(unsafe.SliceData(batch.TopP)),
		(*C.float)(unsafe.SliceData(batch.MinP)), (*C.float)(unsafe.SliceData(batch.Temperature)),
		(*C.uint32_t)(unsafe.Pointer(unsafe.SliceData(batch.RandomWords))),
		(*C.uint64_t)(unsafe.SliceData(batch.Seed)), (*C.uint64_t)(unsafe.SliceData(batch.Offset)),
		flag(batch.KeepTies), (*C.int32_t)(unsafe.SliceData(tokens)),
		(*C.uint32_t)(unsafe.SliceData(rowStatus)), buffer.c))
}

// SampleReference is like SampleDebug, but sorts each row on the CPU and sums in 128-bit integers. It is slow, but
// simple. Therefore it is the reference for the other methods. It ignores batch.Path and the sampler's device.
func (s *Sampler) SampleReference(
	batch *Batch, tokens []int32, rowStatus []RowStatus, debug *DebugArrays,
) error {
	return s.sampleDebug(batch, true, tokens, rowStatus, debug)
}

// SampleDebug is like Sample, and also writes intermediate arrays. debug may be nil.
func (s *Sampler) SampleDebug(batch *Batch, tokens []int32, rowStatus []RowStatus, debug *DebugArrays) error {
	return s.sampleDebug(batch, false, tokens, rowStatus, debug)
}

func (s *Sampler) sampleDebug(
	batch *Batch, reference bool, tokens []int32, rowStatus []RowStatus, debug *DebugArrays,
) error {
	if err := batch.check(tokens, rowStatus); err != nil {
		return err
	}
	if batch.Path < PathAuto || batch.Path > PathBounded {
		return invalid("path", "is %d; it must be a Path", batch.Path)
	}
	if debug == nil {
		debug = &DebugArrays{}
	}
	if err := debug.check(batch.Rows, batch.Vocab, s.maxK, batch.Logits.dtype); err != nil {
		return err
	}
	var replaceVal C.float
	if debug.ReplaceVal != nil {
		replaceVal = C.float(*debug.ReplaceVal)
	}
	return s.use(func(c *C.nuc_sampler, e *C.nuc_error) C.nuc_status {
		return C.nucleus_go_sample(
			c, C.nuc_path(batch.Path), flag(reference), batch.Logits.pointer, C.nuc_dtype(batch.Logits.dtype),
			C.size_t(batch.Rows), C.size_t(batch.Vocab), C.size_t(batch.RowStride),
			(*C.int32_t)(unsafe.SliceData(batch.TopK)), (*C.float)(unsafe.SliceData(batch.TopP)),
			(*C.float)(unsafe.SliceData(batch.MinP)), (*C.float)(unsafe.SliceData(batch.Temperature)),
			(*C.uint32_t)(unsafe.Pointer(unsafe.SliceData(batch.RandomWords))),
			(*C.uint64_t)(unsafe.SliceData(batch.Seed)), (*C.uint64_t)(unsafe.SliceData(batch.Offset)),
			flag(batch.KeepTies), flag(debug.ReplaceVal != nil), replaceVal,
			(*C.int32_t)(unsafe.SliceData(tokens)), (*C.uint32_t)(unsafe.SliceData(rowStatus)),
			(*C.int32_t)(unsafe.SliceData(debug.GreedySampled)), debug.TopkLogitsUnsorted.pointer,
			(*C.int32_t)(unsafe.SliceData(debug.TopkToppUnnormProbsI32Unsorted)),
			(*C.uint32_t)(unsafe.SliceData(debug.RandomUnnormCDFSampledHigh)),
			(*C.uint32_t)(unsafe.SliceData(debug.RandomUnnormCDFSampledLow)),
			(*C.int32_t)(unsafe.SliceData(debug.NextTokens)),
			(*C.int32_t)(unsafe.SliceData(debug.TopkIndicesK)),
			debug.TopkLogitsK.pointer, (*C.int32_t)(unsafe.SliceData(debug.TopkToppUnnormProbsI32K)), e)
	})
}
