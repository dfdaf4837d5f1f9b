package nucleus

/*
#include <nucleus.h>
*/
import "C"

// DebugArrays are the intermediate arrays of a sampling call, for validation. They are bit-identical on every
// backend. Set the slices that you want; a call does not compute an array whose slice is nil. Every array is dense
// and row-major.
//
// The last three fields are the k-slices. They belong to the bounded path: if one is set, every row needs
// 1 <= k <= MaxK, or Vocab <= MaxK.
type DebugArrays struct {
	// ReplaceVal is the value of TopkLogitsUnsorted where top-k removed the entry. nil: -1e12.
	ReplaceVal *float32
	// GreedySampled [rows]: the lowest index of the row's maximum; -1 if there is no candidate.
	GreedySampled []int32
	// TopkLogitsUnsorted [rows, vocab], of the type of the logits: the cleaned logit if top-k kept the entry, else
	// ReplaceVal.
	TopkLogitsUnsorted Logits
	// TopkToppUnnormProbsI32Unsorted [rows, vocab]: the integer weight, 0 to 2^28, if all filters kept the entry, else 0.
	TopkToppUnnormProbsI32Unsorted []int32
	// RandomUnnormCDFSampledHigh and RandomUnnormCDFSampledLow [rows]: the two halves of r, the random number modulo the
	// total of the kept weights.
	RandomUnnormCDFSampledHigh, RandomUnnormCDFSampledLow []uint32
	// NextTokens [rows]: the lowest index whose inclusive prefix sum of kept weights exceeds r; -1 if there is none.
	NextTokens []int32
	// TopkIndicesK [rows, MaxK]: the indices that top-k kept, ascending; -1 in unused slots.
	TopkIndicesK []int32
	// TopkLogitsK [rows, MaxK], of the type of the logits: TopkLogitsUnsorted at those indices.
	TopkLogitsK Logits
	// TopkToppUnnormProbsI32K [rows, MaxK]: TopkToppUnnormProbsI32Unsorted at those indices.
	TopkToppUnnormProbsI32K []int32
}

// DebugBits select the debug arrays that calls will request, for PrewarmSpec, StartOptions, EmitOptions and
// CompileAheadOptions. Debug arrays with one number per row need no bit.
type DebugBits uint32

const (
	// DebugTopkLogits selects TopkLogitsUnsorted.
	DebugTopkLogits DebugBits = C.NUC_DEBUG_TOPK_LOGITS
	// DebugTopkToppProbs selects TopkToppUnnormProbsI32Unsorted.
	DebugTopkToppProbs DebugBits = C.NUC_DEBUG_TOPK_TOPP_PROBS
	// DebugKSlices selects the k-slices.
	DebugKSlices DebugBits = C.NUC_DEBUG_K_SLICES
)

// check ensures that C writes no element outside of a slice.
func (d *DebugArrays) check(rows, vocab, maxK int, dtype DType) error {
	whole, wholeFits := elements(rows, vocab)
	slots, slotsFit := elements(rows, maxK)
	for _, array := range [...]struct {
		argument string
		isNil    bool
		length   int
		wanted   int
		fits     bool
	}{
		{"greedy_sampled", d.GreedySampled == nil, len(d.GreedySampled), rows, true},
		{"topk_logits_unsorted", d.TopkLogitsUnsorted.pointer == nil, d.TopkLogitsUnsorted.length, whole,
			wholeFits},
		{"topk_topp_unnorm_probs_i32_unsorted", d.TopkToppUnnormProbsI32Unsorted == nil,
			len(d.TopkToppUnnormProbsI32Unsorted), whole, wholeFits},
		{"random_unnorm_cdf_sampled_high", d.RandomUnnormCDFSampledHigh == nil,
			len(d.RandomUnnormCDFSampledHigh), rows, true},
		{"random_unnorm_cdf_sampled_low", d.RandomUnnormCDFSampledLow == nil,
			len(d.RandomUnnormCDFSampledLow), rows, true},
		{"next_tokens", d.NextTokens == nil, len(d.NextTokens), rows, true},
		{"topk_indices_k", d.TopkIndicesK == nil, len(d.TopkIndicesK), slots, slotsFit},
		{"topk_logits_k", d.TopkLogitsK.pointer == nil, d.TopkLogitsK.length, slots, slotsFit},
		{"topk_topp_unnorm_probs_i32_k", d.TopkToppUnnormProbsI32K == nil, len(d.TopkToppUnnormProbsI32K),
			slots, slotsFit},
	} {
		if !array.isNil && !array.fits {
			return invalid(array.argument, "would need more elements than a slice can have")
		}
		if err := checkLength(array.argument, array.isNil, array.length, array.wanted); err != nil {
			return err
		}
	}
	if d.TopkLogitsUnsorted.pointer != nil && d.TopkLogitsUnsorted.dtype != dtype {
		return invalid("topk_logits_unsorted", "does not have the type of the logits")
	}
	if d.TopkLogitsK.pointer != nil && d.TopkLogitsK.dtype != dtype {
		return invalid("topk_logits_k", "does not have the type of the logits")
	}
	return nil
}
