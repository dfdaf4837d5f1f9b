package nucleus_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"nucleus"
)

// A vector is a case of tests/vectors: the words of each line by the name of the line.
type vector map[string][]string

// readVectors reads every case of tests/vectors.
func readVectors(t testing.TB) []vector {
	files, err := filepath.Glob("../../tests/vectors/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in tests/vectors: %v", err)
	}
	var vectors []vector
	for _, file := range files {
		vectors = append(vectors, readVectorFile(t, file)...)
	}
	return vectors
}

func readVectorFile(t testing.TB, path string) []vector {
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<22)
	if !scanner.Scan() || scanner.Text() != "nucleus-vectors 1" {
		t.Fatalf("%s: the first line is not that of version 1", path)
	}
	var vectors []vector
	var current vector
	for scanner.Scan() {
		words := strings.Fields(scanner.Text())
		switch {
		case len(words) == 0 || strings.HasPrefix(words[0], "#"):
		case words[0] == "case":
			current = vector{"case": words[1:]}
		case words[0] == "end":
			vectors = append(vectors, current)
		default:
			current[words[0]] = words[1:]
		}
	}
	if err := scanner.Err(); err != nil {
		t.Fatal(err)
	}
	return vectors
}

// numbers parses the words of a line. Values are bit patterns if base is 16. It returns nil if there is no such line.
func numbers[T any](v vector, key string, base int) []T {
	words, found := v[key]
	if !found {
		return nil
	}
	values := make([]T, len(words))
	for i, word := range words {
		if base == 10 {
			number, err := strconv.ParseInt(word, 10, 32)
			if err != nil {
				panic(fmt.Sprintf("%s: %s: %v", v["case"], key, err))
			}
			*(*int32)(unsafe.Pointer(&values[i])) = int32(number)
			continue
		}
		size := int(unsafe.Sizeof(values[i]))
		bits, err := strconv.ParseUint(word, 16, 8*size)
		if err != nil || len(word) != 2*size {
			panic(fmt.Sprintf("%s: %s: %q", v["case"], key, word))
		}
		switch size {
		case 2:
			*(*uint16)(unsafe.Pointer(&values[i])) = uint16(bits)
		case 4:
			*(*uint32)(unsafe.Pointer(&values[i])) = uint32(bits)
		case 8:
			*(*uint64)(unsafe.Pointer(&values[i])) = bits
		}
	}
	return values
}

func (v vector) number(key string) int { return int(numbers[int32](v, key, 10)[0]) }

// logitsOf returns logits of the type of the case, and a function that returns the bits of such logits in words.
func (v vector) logitsOf(key string, length int) (nucleus.Logits, func() []string) {
	if v["dtype"][0] == "f32" {
		values := numbers[float32](v, key, 16)
		if key == "" {
			values = make([]float32, length)
		}
		return nucleus.F32(values), func() []string {
			return words("%08x", unsafe.Slice((*uint32)(unsafe.Pointer(unsafe.SliceData(values))),
				len(values)))
		}
	}
	values := numbers[uint16](v, key, 16)
	if key == "" {
		values = make([]uint16, length)
	}
	constructor := nucleus.BF16
	if v["dtype"][0] == "f16" {
		constructor = nucleus.F16
	}
	return constructor(values), func() []string { return words("%04x", values) }
}

func words[T any](format string, values []T) []string {
	texts := make([]string, len(values))
	for i, value := range values {
		texts[i] = fmt.Sprintf(format, value)
	}
	return texts
}

func (v vector) path() nucleus.Path {
	path, found := map[string]nucleus.Path{
		"auto": nucleus.PathAuto, "arbitrary": nucleus.PathArbitrary, "bounded": nucleus.PathBounded,
	}[v["path"][0]]
	if !found {
		panic("unknown path " + v["path"][0])
	}
	return path
}

func (v vector) batch() *nucleus.Batch {
	logits, _ := v.logitsOf("logits", 0)
	randomWords := numbers[uint32](v, "random_words", 16)
	return &nucleus.Batch{
		Logits:      logits,
		Rows:        v.number("num_rows"),
		Vocab:       v.number("vocab"),
		TopK:        numbers[int32](v, "top_k", 10),
		TopP:        numbers[float32](v, "top_p", 16),
		MinP:        numbers[float32](v, "min_p", 16),
		Temperature: numbers[float32](v, "temperature", 16),
		RandomWords: unsafe.Slice((*[4]uint32)(unsafe.Pointer(unsafe.SliceData(randomWords))),
			len(randomWords)/4),
		Seed:     numbers[uint64](v, "seed", 16),
		Offset:   numbers[uint64](v, "offset", 16),
		KeepTies: v["keep_ties"][0] == "1",
		Path:     v.path(),
	}
}

// results calls a sampling method with every output. It returns the words of each output by the name of its line.
func (v vector) results(
	t *testing.T, batch *nucleus.Batch,
	sample func(*nucleus.Batch, []int32, []nucleus.RowStatus, *nucleus.DebugArrays) error,
) map[string][]string {
	rows, all, slots := batch.Rows, batch.Rows*batch.Vocab, batch.Rows*v.number("max_k")
	tokens, status := make([]int32, rows), make([]nucleus.RowStatus, rows)
	topkLogits, topkLogitsWords := v.logitsOf("", all)
	debug := &nucleus.DebugArrays{
		ReplaceVal:                     &numbers[float32](v, "replace_val", 16)[0],
		GreedySampled:                  make([]int32, rows),
		TopkLogitsUnsorted:             topkLogits,
		TopkToppUnnormProbsI32Unsorted: make([]int32, all),
		RandomUnnormCDFSampledHigh:     make([]uint32, rows),
		RandomUnnormCDFSampledLow:      make([]uint32, rows),
		NextTokens:                     make([]int32, rows),
	}
	var logitsKWords func() []string
	slices := batch.Path == nucleus.PathBounded
	if slices {
		debug.TopkLogitsK, logitsKWords = v.logitsOf("", slots)
		debug.TopkIndicesK, debug.TopkToppUnnormProbsI32K = make([]int32, slots), make([]int32, slots)
	}
	if err := sample(batch, tokens, status, debug); err != nil {
		t.Fatal(err)
	}
	outputs := map[string][]string{
		"tokens":                              words("%d", tokens),
		"row_status":                          words("%08x", status),
		"greedy_sampled":                      words("%d", debug.GreedySampled),
		"topk_logits_unsorted":                topkLogitsWords(),
		"topk_topp_unnorm_probs_i32_unsorted": words("%d", debug.TopkToppUnnormProbsI32Unsorted),
		"random_unnorm_cdf_sampled_high":      words("%08x", debug.RandomUnnormCDFSampledHigh),
		"random_unnorm_cdf_sampled_low":       words("%08x", debug.RandomUnnormCDFSampledLow),
		"next_tokens":                         words("%d", debug.NextTokens),
	}
	if slices {
		outputs["topk_indices_k"] = words("%d", debug.TopkIndicesK)
		outputs["topk_logits_k"] = logitsKWords()
		outputs["topk_topp_unnorm_probs_i32_k"] = words("%d", debug.TopkToppUnnormProbsI32K)
	}
	return outputs
}

// compare compares outputs with the lines of the case. It returns the number of values.
func (v vector) compare(outputs map[string][]string) (int, error) {
	count := 0
	for key, found := range outputs {
		wanted := v[key]
		if len(wanted) == 0 {
			return 0, fmt.Errorf("the case has no line %s", key)
		}
		if !slices.Equal(found, wanted) {
			return 0, fmt.Errorf("%s:\nfound  %s\nwanted %s", key, found, wanted)
		}
		count += len(found)
	}
	return count, nil
}

// checkVectors compares every output of the cases on one backend.
func checkVectors(t *testing.T, options nucleus.Options, selected func(vector) bool) {
	samplers := map[int]*nucleus.Sampler{}
	cases, rows, values := 0, 0, 0
	for _, v := range readVectors(t) {
		if !selected(v) {
			continue
		}
		maxK := v.number("max_k")
		if samplers[maxK] == nil {
			options.MaxK = maxK
			samplers[maxK] = newSampler(t, &options)
		}
		sampler := samplers[maxK]
		t.Run(v["case"][0], func(t *testing.T) {
			batch := v.batch()
			check := func(outputs map[string][]string) {
				count, err := v.compare(outputs)
				if err != nil {
					t.Error(err)
				}
				values += count
			}
			check(v.results(t, batch, sampler.SampleDebug))
			check(v.results(t, batch, sampler.SampleReference))
			check(flatResults(t, sampler, batch))
			checkWithoutStatus(t, sampler, batch, v)
			if batch.Path == nucleus.PathAuto && options.Backend == nucleus.BackendBuiltin {
				batch.Path = nucleus.PathArbitrary
				check(v.results(t, batch, sampler.SampleDebug))
			}
			cases, rows = cases+1, rows+batch.Rows
		})
	}
	if cases == 0 {
		t.Fatal("no case was selected")
	}
	t.Logf("%d cases, %d rows, %d values", cases, rows, values)
}

func flatResults(t *testing.T, sampler *nucleus.Sampler, batch *nucleus.Batch) map[string][]string {
	tokens, status := make([]int32, batch.Rows), make([]nucleus.RowStatus, batch.Rows)
	if err := sampler.Sample(batch, tokens, status); err != nil {
		t.Fatal(err)
	}
	return map[string][]string{"tokens": words("%d", tokens), "row_status": words("%08x", status)}
}

// Without a row status, an impossible parameter is an error of its row.
func checkWithoutStatus(t *testing.T, sampler *nucleus.Sampler, batch *nucleus.Batch, v vector) {
	tokens := make([]int32, batch.Rows)
	err := sampler.Sample(batch, tokens, nil)
	if !slices.Contains(v["row_status"], "00000008") {
		if err != nil {
			t.Error(err)
		} else if found := words("%d", tokens); !slices.Equal(found, v["tokens"]) {
			t.Errorf("tokens without a row status: %s", found)
		}
		return
	}
	var failure *nucleus.Error
	if !errors.As(err, &failure) || failure.Status != nucleus.InvalidArgument || failure.Row < 0 ||
		v["row_status"][failure.Row] != "00000008" {
		t.Errorf("the error without a row status is %v", err)
	}
}

func TestVectorsBuiltin(t *testing.T) {
	options := nucleus.Options{Backend: nucleus.BackendBuiltin, NumThreads: 2}
	checkVectors(t, options, func(vector) bool { return true })
}

// A plugin compiles programs for each type and shape, which takes seconds. So only the cases of the most frequent shape
// run on the plugin: those of f32, and the bounded path of bf16.
func TestVectorsPlugin(t *testing.T) {
	options := nucleus.Options{Backend: nucleus.BackendPJRT, PluginPath: plugin(t), RowBuckets: []int{8}}
	checkVectors(t, options, func(v vector) bool {
		return v.number("vocab") == 16 && v["keep_ties"][0] == "0" &&
			(v["dtype"][0] == "f32" || v["dtype"][0] == "bf16" && v["path"][0] == "bounded")
	})
}

// A comparison that cannot fail proves nothing.
func TestVectorsComparisonFails(t *testing.T) {
	sampler := newSampler(t, &nucleus.Options{Backend: nucleus.BackendBuiltin, MaxK: 8})
	for _, v := range readVectors(t) {
		if v["path"][0] != "bounded" || v.number("max_k") != 8 {
			continue
		}
		outputs := v.results(t, v.batch(), sampler.SampleDebug)
		for key := range outputs {
			changed := slices.Clone(outputs[key])
			changed[len(changed)-1] += "1"
			if _, err := v.compare(map[string][]string{key: changed}); err == nil {
				t.Errorf("a change of %s was not found", key)
			}
		}
		return
	}
	t.Fatal("no case has the bounded path")
}
