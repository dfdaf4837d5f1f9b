package nucleus_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"nucleus"
)

// newSampler creates a sampler and closes it at the end of the test.
func newSampler(t testing.TB, options *nucleus.Options) *nucleus.Sampler {
	t.Helper()
	sampler, err := nucleus.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := sampler.Close(); err != nil {
			t.Error(err)
		}
	})
	return sampler
}

func builtin(t testing.TB) *nucleus.Sampler {
	return newSampler(t, &nucleus.Options{Backend: nucleus.BackendBuiltin, NumThreads: 1})
}

// plugin returns the path of the CPU plugin for the tests, or skips the test.
func plugin(t testing.TB) string {
	path, err := filepath.Abs("../../.cache/plugins/lammps-jax-pjrt-cpu.so")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Skipf("no plugin; scripts/fetch-plugins.sh downloads it: %v", err)
	}
	return path
}

// wantError checks the status, the argument and the row of an error.
func wantError(t *testing.T, err error, status nucleus.Status, argument string, row int) {
	t.Helper()
	var failure *nucleus.Error
	if !errors.As(err, &failure) {
		t.Errorf("found %v, want an error with the argument %q", err, argument)
		return
	}
	if failure.Status != status || failure.Argument != argument || failure.Row != row {
		t.Errorf("found %v, argument %q, row %d; want %v, %q, %d",
			failure, failure.Argument, failure.Row, status, argument, row)
	}
	if !errors.Is(err, status) || errors.Is(err, nucleus.OK) || failure.Message == "" {
		t.Errorf("%v is not %v, or has no message", err, status)
	}
}

func TestErrorsOfSample(t *testing.T) {
	sampler := builtin(t)
	nan := float32(math.NaN())
	for _, test := range []struct {
		name, argument string
		row            int
		change         func(*nucleus.Batch)
	}{
		{"short logits", "logits", -1, func(b *nucleus.Batch) { b.Logits = nucleus.F32(make([]float32, 7)) }},
		{"short logits of a stride", "logits", -1, func(b *nucleus.Batch) { b.RowStride = 5 }},
		{"nil logits", "logits", -1, func(b *nucleus.Batch) { b.Logits = nucleus.Logits{} }},
		{"stride below vocab", "row_stride", -1, func(b *nucleus.Batch) { b.RowStride = 3 }},
		{"overflow", "logits", -1, func(b *nucleus.Batch) { b.Vocab, b.RowStride = 4, math.MaxInt }},
		{"negative rows", "num_rows", -1, func(b *nucleus.Batch) { b.Rows = -1 }},
		{"negative vocab", "vocab", -1, func(b *nucleus.Batch) { b.Vocab = -4 }},
		{"vocab 0", "vocab", -1, func(b *nucleus.Batch) { b.Vocab = 0 }},
		{"short top_k", "top_k", -1, func(b *nucleus.Batch) { b.TopK = []int32{1} }},
		{"empty top_p", "top_p", -1, func(b *nucleus.Batch) { b.TopP = []float32{} }},
		{"long min_p", "min_p", -1, func(b *nucleus.Batch) { b.MinP = make([]float32, 3) }},
		{"short temperature", "temperature", -1,
			func(b *nucleus.Batch) { b.Temperature = make([]float32, 1) }},
		{"short random words", "random_words", -1,
			func(b *nucleus.Batch) { b.RandomWords = make([][4]uint32, 1) }},
		{"long seed", "seed", -1, func(b *nucleus.Batch) { b.Seed = make([]uint64, 3) }},
		{"short offset", "offset", -1, func(b *nucleus.Batch) { b.Offset = make([]uint64, 1) }},
		{"words and seed", "random_words", -1, func(b *nucleus.Batch) {
			b.RandomWords, b.Seed = make([][4]uint32, 2), make([]uint64, 2)
		}},
		{"path", "path", -1, func(b *nucleus.Batch) { b.Path = 9 }},
		{"NaN temperature", "temperature", 1, func(b *nucleus.Batch) { b.Temperature = []float32{1, nan} }},
		{"NaN top_p", "top_p", 0, func(b *nucleus.Batch) { b.TopP = []float32{nan, 1} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			batch := &nucleus.Batch{Logits: nucleus.F32(make([]float32, 8)), Rows: 2, Vocab: 4}
			test.change(batch)
			tokens := []int32{-7, -7}
			wantError(t, sampler.Sample(batch, tokens, nil), nucleus.InvalidArgument, test.argument, test.row)
			wantError(t, sampler.SampleDebug(batch, tokens, nil, nil), nucleus.InvalidArgument, test.argument,
				test.row)
			if tokens[0] != -7 || tokens[1] != -7 {
				t.Errorf("a call that failed wrote %v", tokens)
			}
		})
	}
	batch := &nucleus.Batch{Logits: nucleus.F32(make([]float32, 8)), Rows: 2, Vocab: 4}
	wantError(t, sampler.Sample(batch, make([]int32, 1), nil), nucleus.InvalidArgument, "tokens", -1)
	wantError(t, sampler.Sample(batch, make([]int32, 2), make([]nucleus.RowStatus, 3)),
		nucleus.InvalidArgument, "row_status", -1)
}

func TestErrorsOfDebugArrays(t *testing.T) {
	sampler := newSampler(t, &nucleus.Options{Backend: nucleus.BackendBuiltin, MaxK: 3})
	if sampler.MaxK() != 3 {
		t.Errorf("MaxK is %d", sampler.MaxK())
	}
	nan := float32(math.NaN())
	for argument, debug := range map[string]*nucleus.DebugArrays{
		"greedy_sampled":                      {GreedySampled: make([]int32, 1)},
		"topk_logits_unsorted":                {TopkLogitsUnsorted: nucleus.F32(make([]float32, 7))},
		"topk_topp_unnorm_probs_i32_unsorted": {TopkToppUnnormProbsI32Unsorted: make([]int32, 9)},
		"random_unnorm_cdf_sampled_high":      {RandomUnnormCDFSampledHigh: make([]uint32, 3)},
		"random_unnorm_cdf_sampled_low":       {RandomUnnormCDFSampledLow: make([]uint32, 0)},
		"next_tokens":                         {NextTokens: make([]int32, 1)},
		"topk_indices_k":                      {TopkIndicesK: make([]int32, 8)},
		"topk_logits_k":                       {TopkLogitsK: nucleus.F32(make([]float32, 5))},
		"topk_topp_unnorm_probs_i32_k":        {TopkToppUnnormProbsI32K: make([]int32, 7)},
		"replace_val":                         {ReplaceVal: &nan},
	} {
		batch := &nucleus.Batch{Logits: nucleus.F32(make([]float32, 8)), Rows: 2, Vocab: 4,
			TopK: []int32{1, 2}}
		err := sampler.SampleDebug(batch, make([]int32, 2), nil, debug)
		wantError(t, err, nucleus.InvalidArgument, argument, -1)
	}
	batch := &nucleus.Batch{Logits: nucleus.F16(make([]uint16, 8)), Rows: 2, Vocab: 4, TopK: []int32{1, 2}}
	for argument, debug := range map[string]*nucleus.DebugArrays{
		"topk_logits_unsorted": {TopkLogitsUnsorted: nucleus.BF16(make([]uint16, 8))},
		"topk_logits_k":        {TopkLogitsK: nucleus.F32(make([]float32, 6))},
	} {
		err := sampler.SampleDebug(batch, make([]int32, 2), nil, debug)
		wantError(t, err, nucleus.InvalidArgument, argument, -1)
	}
	// A k that does not fit the slots is an error of its row.
	batch = &nucleus.Batch{Logits: nucleus.F32(make([]float32, 8)), Rows: 2, Vocab: 4, TopK: []int32{1, 0},
		Path: nucleus.PathBounded}
	wantError(t, sampler.SampleDebug(batch, make([]int32, 2), nil, nil), nucleus.InvalidArgument, "top_k", 1)
}

func TestErrorsOfNew(t *testing.T) {
	for _, test := range []struct {
		argument string
		status   nucleus.Status
		options  nucleus.Options
	}{
		{"max_k", nucleus.InvalidArgument, nucleus.Options{MaxK: 2000}},
		{"max_k", nucleus.InvalidArgument, nucleus.Options{MaxK: -1}},
		{"row_buckets", nucleus.InvalidArgument, nucleus.Options{RowBuckets: []int{4, 2}}},
		{"row_buckets", nucleus.InvalidArgument, nucleus.Options{RowBuckets: []int{-4}}},
		{"plugin_path", nucleus.InvalidArgument, nucleus.Options{PluginPath: "a\x00b"}},
		{"device_index", nucleus.InvalidArgument, nucleus.Options{DeviceIndex: 1 << 40}},
		{"client_options", nucleus.InvalidArgument,
			nucleus.Options{ClientOptions: []nucleus.ClientOption{{"a", 1.5}}}},
		{"", nucleus.PluginNotFound, nucleus.Options{PluginPath: "/nowhere/plugin.so"}},
	} {
		sampler, err := nucleus.New(&test.options)
		wantError(t, err, test.status, test.argument, -1)
		if sampler != nil {
			t.Error("a sampler after an error")
		}
	}
	_, err := nucleus.New(&nucleus.Options{PluginPath: "/nowhere/plugin.so"})
	if !strings.Contains(err.Error(), "/nowhere/plugin.so") ||
		!strings.Contains(err.Error(), "NUC_PLUGIN_NOT_FOUND") {
		t.Errorf("the message is %q", err)
	}
}

func TestZeroRowsAndStride(t *testing.T) {
	sampler := builtin(t)
	if err := sampler.Sample(&nucleus.Batch{Vocab: 4}, nil, nil); err != nil {
		t.Error(err)
	}
	// The elements between the rows are larger than those of the rows. They are ignored.
	batch := &nucleus.Batch{
		Logits: nucleus.F32([]float32{1, 3, 9, 9, 5, 2}), Rows: 2, Vocab: 2, RowStride: 4,
		Temperature: []float32{0, 0},
	}
	tokens := make([]int32, 2)
	if err := sampler.Sample(batch, tokens, nil); err != nil || tokens[0] != 1 || tokens[1] != 0 {
		t.Errorf("tokens %v, error %v", tokens, err)
	}
}

func TestSampleAllocatesNothing(t *testing.T) {
	sampler := builtin(t)
	batch := &nucleus.Batch{
		Logits: nucleus.F32(make([]float32, 64)), Rows: 2, Vocab: 32, TopK: []int32{3, 0},
		Seed: []uint64{1, 2},
	}
	tokens, status := make([]int32, 2), make([]nucleus.RowStatus, 2)
	allocations := testing.AllocsPerRun(1000, func() {
		if err := sampler.Sample(batch, tokens, status); err != nil {
			t.Fatal(err)
		}
	})
	// The race detector makes sync.Pool drop some objects on purpose.
	if allocations > 0 && !raceDetector {
		t.Errorf("%v allocations per call", allocations)
	}
}

// Goroutines that share a sampler get the tokens that they would get alone.
func TestManyGoroutines(t *testing.T) {
	sampler := newSampler(t, &nucleus.Options{Backend: nucleus.BackendBuiltin, NumThreads: 2})
	const vocab, steps = 500, 40
	logits := make([]float32, vocab)
	for i := range logits {
		logits[i] = float32(math.Sin(float64(i * i)))
	}
	run := func(seed uint64) [steps]int32 {
		var tokens [steps]int32
		for step := range tokens {
			batch := &nucleus.Batch{
				Logits: nucleus.F32(logits), Rows: 1, Vocab: vocab, Seed: []uint64{seed},
				Offset: []uint64{uint64(step)},
			}
			if err := sampler.Sample(batch, tokens[step:step+1], nil); err != nil {
				t.Error(err)
			}
		}
		return tokens
	}
	var group sync.WaitGroup
	for seed := range uint64(16) {
		alone := run(seed)
		group.Add(1)
		go func() {
			defer group.Done()
			for range 5 {
				if found := run(seed); found != alone {
					t.Errorf("seed %d: %v instead of %v", seed, found, alone)
				}
			}
		}()
	}
	group.Wait()
}

// Close waits for the calls that run. Calls that begin later return an error.
func TestCloseDuringCalls(t *testing.T) {
	for range 20 {
		sampler, err := nucleus.New(&nucleus.Options{Backend: nucleus.BackendBuiltin, NumThreads: 1})
		if err != nil {
			t.Fatal(err)
		}
		var group sync.WaitGroup
		started := make(chan struct{}, 8)
		for range 8 {
			group.Add(1)
			go func() {
				defer group.Done()
				batch := &nucleus.Batch{Logits: nucleus.F32(make([]float32, 3000)), Rows: 1, Vocab: 3000}
				tokens := make([]int32, 1)
				started <- struct{}{}
				for {
					if err := sampler.Sample(batch, tokens, nil); err != nil {
						wantError(t, err, nucleus.InvalidArgument, "sampler", -1)
						return
					}
				}
			}()
		}
		<-started
		for range 3 {
			group.Add(1)
			go func() {
				defer group.Done()
				if err := sampler.Close(); err != nil {
					t.Error(err)
				}
			}()
		}
		group.Wait()
		if _, err := sampler.Stats(); err == nil {
			t.Error("a closed sampler has counters")
		}
	}
}

func TestZeroValuesDoNotCrash(t *testing.T) {
	var sampler nucleus.Sampler
	batch := &nucleus.Batch{Logits: nucleus.F32(make([]float32, 2)), Rows: 1, Vocab: 2}
	wantError(t, sampler.Sample(batch, make([]int32, 1), nil), nucleus.InvalidArgument, "sampler", -1)
	if err := sampler.Close(); err != nil {
		t.Error(err)
	}
	var parameters nucleus.Parameters
	_, err := sampler.Start(nucleus.PathAuto, nil, &parameters, 0, nil)
	wantError(t, err, nucleus.InvalidArgument, "parameters", -1)
	var call nucleus.Call
	wantError(t, call.Wait(context.Background()), nucleus.InvalidArgument, "call", -1)
	wantError(t, call.Tokens(nil, nil), nucleus.InvalidArgument, "call", -1)
	if err := errors.Join(call.Close(), parameters.Close()); err != nil {
		t.Error(err)
	}
}

// threads returns the number of threads of the process.
func threads(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// The garbage collector frees samplers that nobody closed. Their threads end then.
func TestSamplersAreCollected(t *testing.T) {
	before := threads(t)
	for range 10 {
		if _, err := nucleus.New(&nucleus.Options{Backend: nucleus.BackendBuiltin,
			NumThreads: 16}); err != nil {
			t.Fatal(err)
		}
	}
	if during := threads(t); during < before+16 {
		t.Fatalf("%d threads before, %d with 10 samplers of 16 threads", before, during)
	}
	deadline := time.Now().Add(20 * time.Second)
	for threads(t) >= before+16 {
		if time.Now().After(deadline) {
			t.Fatalf("%d threads before, %d after all samplers became unreachable", before, threads(t))
		}
		runtime.GC()
		time.Sleep(10 * time.Millisecond)
	}
}

func TestInfo(t *testing.T) {
	sampler := builtin(t)
	info, err := sampler.Info()
	if err != nil || info.PlatformName != "builtin" || info.NumDevices != 1 || info.MaxK != 128 ||
		info.PJRTAPI != nil {
		t.Errorf("%+v, %v", info, err)
	}
	device, err := sampler.Device(0)
	if err != nil || device.Kind == "" {
		t.Errorf("%+v, %v", device, err)
	}
	_, err = sampler.Device(1)
	wantError(t, err, nucleus.InvalidArgument, "index", -1)
	_, err = sampler.Device(-1)
	wantError(t, err, nucleus.InvalidArgument, "index", -1)
	batch := &nucleus.Batch{Logits: nucleus.F32(make([]float32, 2)), Rows: 1, Vocab: 2}
	for range 5 {
		if err := sampler.Sample(batch, make([]int32, 1), nil); err != nil {
			t.Fatal(err)
		}
	}
	stats, err := sampler.Stats()
	if err != nil || stats.Total.Count != 5 || stats.Total.P99 <= 0 || stats.Total.P50 > stats.Total.P99 {
		t.Errorf("%+v, %v", stats, err)
	}
	if !strings.HasPrefix(nucleus.Version(), "0.") || nucleus.VersionNumber() < 1000 {
		t.Errorf("version %s, %d", nucleus.Version(), nucleus.VersionNumber())
	}
	if nucleus.DeviceError.String() != "NUC_DEVICE_ERROR" || nucleus.Status(99).Error() != "unknown status" {
		t.Error("names of statuses")
	}
}

func TestSetLog(t *testing.T) {
	sampler := newSampler(t, &nucleus.Options{Backend: nucleus.BackendBuiltin, NumThreads: 1})
	messages := make(chan string, 100)
	err := nucleus.SetLog(nucleus.LogDebug, func(level nucleus.LogLevel, message string) {
		// A callback may use the library.
		if _, err := sampler.Stats(); err != nil || level != nucleus.LogDebug {
			t.Errorf("level %d, error %v", level, err)
		}
		messages <- message
	})
	if err != nil {
		t.Fatal(err)
	}
	batch := &nucleus.Batch{Logits: nucleus.F32(make([]float32, 2)), Rows: 1, Vocab: 2,
		Temperature: []float32{-1}}
	wantError(t, sampler.Sample(batch, make([]int32, 1), nil), nucleus.InvalidArgument, "temperature", 0)
	select {
	case message := <-messages:
		if !strings.Contains(message, "temperature") {
			t.Errorf("the message is %q", message)
		}
	default:
		t.Error("a failed call was not logged")
	}
	if err := nucleus.SetLog(99, nil); err == nil {
		t.Error("level 99 was accepted")
	}
	if err := nucleus.SetLog(nucleus.LogOff, nil); err != nil {
		t.Fatal(err)
	}
	for len(messages) > 0 {
		<-messages
	}
	_ = sampler.Sample(batch, make([]int32, 1), nil)
	select {
	case message := <-messages:
		t.Errorf("%q after the log was turned off", message)
	default:
	}
}

func TestEmitAndPackParameters(t *testing.T) {
	options := &nucleus.EmitOptions{Rows: 2, Vocab: 100, MaxK: 8, DebugArrays: nucleus.DebugTopkLogits}
	text, err := nucleus.Emit(options)
	if err != nil || !strings.Contains(text, "func.func private @nucleus_sample(") ||
		!strings.Contains(text, "tensor<2x100xf32>") || strings.HasSuffix(text, "\x00") {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	batch := &nucleus.Batch{TopK: []int32{5, 0}, Temperature: []float32{0.5, 1},
		Seed: []uint64{1, math.MaxUint64}}
	parameters, err := nucleus.PackParameters(options, batch)
	if err != nil || len(parameters) != 2*nucleus.ParameterColumns {
		t.Fatalf("%v, %v", parameters, err)
	}
	first, second := parameters[:nucleus.ParameterColumns], parameters[nucleus.ParameterColumns:]
	same, err := nucleus.PackParameters(&nucleus.EmitOptions{Rows: 1, Vocab: 100, MaxK: 8},
		&nucleus.Batch{TopK: []int32{5}, Temperature: []float32{0.5}, Seed: []uint64{1}})
	if err != nil || !equal(first, same) || equal(second, same) {
		t.Errorf("row 0 is %v, alone it is %v, row 1 is %v; %v", first, same, second, err)
	}
	for _, test := range []struct {
		argument string
		row      int
		batch    nucleus.Batch
	}{
		{"temperature", 1, nucleus.Batch{Temperature: []float32{1, -1}}},
		{"top_k", -1, nucleus.Batch{TopK: []int32{1}}},
		{"num_rows", -1, nucleus.Batch{Rows: 3}},
		{"vocab", -1, nucleus.Batch{Vocab: 3}},
		{"batch", -1, nucleus.Batch{Logits: nucleus.F32(make([]float32, 200))}},
		{"keep_ties", -1, nucleus.Batch{KeepTies: true}},
	} {
		_, err := nucleus.PackParameters(options, &test.batch)
		wantError(t, err, nucleus.InvalidArgument, test.argument, test.row)
	}
	_, err = nucleus.Emit(&nucleus.EmitOptions{Rows: 2, Vocab: 100, Target: "no such target"})
	wantError(t, err, nucleus.InvalidArgument, "target", -1)
}

func equal(a, b []int32) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestPrewarmOnBuiltin(t *testing.T) {
	sampler := builtin(t)
	spec := &nucleus.PrewarmSpec{Rows: 8, Vocab: 100}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, ctx := range []context.Context{context.Background(), ctx} {
		if err := sampler.Prewarm(ctx, spec); err != nil {
			t.Error(err)
		}
		wantError(t, sampler.Prewarm(ctx, &nucleus.PrewarmSpec{Vocab: 100}), nucleus.InvalidArgument,
			"num_rows", -1)
		wantError(t, sampler.Prewarm(ctx, &nucleus.PrewarmSpec{Rows: -1, Vocab: 100}),
			nucleus.InvalidArgument, "num_rows", -1)
	}
	prewarming, err := sampler.StartPrewarm(spec)
	if err != nil {
		t.Fatal(err)
	}
	<-prewarming.Done()
	// After the prewarm has ended, the result does not depend on the context.
	cancel()
	if err := errors.Join(prewarming.Wait(ctx), prewarming.Cancel(), prewarming.Close(),
		prewarming.Close()); err != nil {
		t.Error(err)
	}
	_, err = prewarming.Progress()
	wantError(t, err, nucleus.InvalidArgument, "prewarming", -1)
	wantError(t, prewarming.Cancel(), nucleus.InvalidArgument, "prewarming", -1)
}

func TestDeviceOnBuiltin(t *testing.T) {
	sampler := builtin(t)
	_, err := sampler.NewParameters(&nucleus.ParametersOptions{Rows: 1, Vocab: 8})
	wantError(t, err, nucleus.InvalidArgument, "sampler", -1)
}
