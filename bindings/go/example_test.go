package nucleus_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"strings"
	"unsafe"

	"nucleus"
)

// A batch of two rows: the first is sampled, the second is greedy.
func ExampleSampler_Sample() {
	sampler, err := nucleus.New(nil)
	if err != nil {
		log.Fatal(err)
	}
	defer sampler.Close()

	batch := &nucleus.Batch{
		Logits:      nucleus.F32([]float32{0.1, 2, -1, 1.9, 5, 0, 4, 0}),
		Rows:        2,
		Vocab:       4,
		TopK:        []int32{3, 0},
		TopP:        []float32{0.95, 1},
		Temperature: []float32{0.7, 0},
		Seed:        []uint64{1, 2},
		Offset:      []uint64{0, 0}, // the number of the step
	}
	tokens := make([]int32, batch.Rows)
	if err := sampler.Sample(batch, tokens, nil); err != nil {
		log.Fatal(err)
	}
	fmt.Println(tokens)
	// Output: [1 0]
}

// Logits of type bfloat16 are slices of their bits. An impossible parameter affects only its own row if the caller
// passes a slice for the row status.
func ExampleSampler_Sample_rowStatus() {
	sampler, err := nucleus.New(&nucleus.Options{Backend: nucleus.BackendBuiltin, NumThreads: 1})
	if err != nil {
		log.Fatal(err)
	}
	defer sampler.Close()

	batch := &nucleus.Batch{
		Logits:      nucleus.BF16([]uint16{0x3f80, 0x4000, 0x0000, 0x4000, 0x3f80, 0x0000}),
		Rows:        2,
		Vocab:       3,
		Temperature: []float32{0, -1},
	}
	tokens, status := make([]int32, 2), make([]nucleus.RowStatus, 2)
	if err := sampler.Sample(batch, tokens, status); err != nil {
		log.Fatal(err)
	}
	fmt.Println(tokens, status[1] == nucleus.RowBadParameter)
	// Output: [1 -1] true
}

// The errors of the library name the argument and the row.
func ExampleError() {
	sampler, err := nucleus.New(&nucleus.Options{Backend: nucleus.BackendBuiltin})
	if err != nil {
		log.Fatal(err)
	}
	defer sampler.Close()

	batch := &nucleus.Batch{
		Logits: nucleus.F32(make([]float32, 6)), Rows: 2, Vocab: 3, Temperature: []float32{1, -1},
	}
	err = sampler.Sample(batch, make([]int32, 2), nil)
	var failure *nucleus.Error
	fmt.Println(errors.As(err, &failure), failure.Argument, failure.Row)
	fmt.Println(errors.Is(err, nucleus.InvalidArgument))
	// Output:
	// true temperature 1
	// true
}

// The intermediate arrays show which entries the filters kept.
func ExampleSampler_SampleDebug() {
	sampler, err := nucleus.New(&nucleus.Options{Backend: nucleus.BackendBuiltin})
	if err != nil {
		log.Fatal(err)
	}
	defer sampler.Close()

	batch := &nucleus.Batch{
		Logits: nucleus.F32([]float32{1, 4, 3, 2}), Rows: 1, Vocab: 4, TopK: []int32{2},
	}
	tokens, topk := make([]int32, 1), make([]float32, 4)
	debug := &nucleus.DebugArrays{
		ReplaceVal:         nucleus.Float32(-100),
		GreedySampled:      make([]int32, 1),
		TopkLogitsUnsorted: nucleus.F32(topk),
	}
	if err := sampler.SampleDebug(batch, tokens, nil, debug); err != nil {
		log.Fatal(err)
	}
	fmt.Println(debug.GreedySampled, topk)
	// Output: [1] [-100 4 3 -100]
}

// A server compiles the programs of a plugin in the background. On the built-in backend there is nothing to compile.
func ExampleSampler_StartPrewarm() {
	sampler, err := nucleus.New(&nucleus.Options{Backend: nucleus.BackendBuiltin})
	if err != nil {
		log.Fatal(err)
	}
	defer sampler.Close()

	spec := &nucleus.PrewarmSpec{Rows: 128, Vocab: 128256, DType: nucleus.DTypeBF16}
	prewarming, err := sampler.StartPrewarm(spec)
	if err != nil {
		log.Fatal(err)
	}
	defer prewarming.Close()
	if err := prewarming.Wait(context.Background()); err != nil {
		log.Fatal(err)
	}
	progress, err := prewarming.Progress()
	fmt.Println(progress.HasEnded, progress.Total, err)
	// Output: true 0 <nil>
}

// The sampler as a function of the caller's own StableHLO program.
func ExampleEmit() {
	text, err := nucleus.Emit(&nucleus.EmitOptions{Rows: 8, Vocab: 1000, Name: "sample"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(strings.Contains(text, "func.func private @sample("))
	// Output: true
}

// Logits on a device: the parameters stay on the device, and each step starts a call.
//
// This example has no output, because it needs a plugin and a model.
func ExampleSampler_Start() {
	ctx := context.Background()
	sampler, err := nucleus.New(&nucleus.Options{PluginPath: "/opt/pjrt/plugin.so"})
	if err != nil {
		log.Fatal(err)
	}
	defer sampler.Close()
	parameters, err := sampler.NewParameters(&nucleus.ParametersOptions{Rows: 8, Vocab: 128256})
	if err != nil {
		log.Fatal(err)
	}
	defer parameters.Close()
	row := &nucleus.RowParameters{TopK: 50, TopP: nucleus.Float32(0.9), Seed: 1}
	if err := parameters.Set(0, row); err != nil {
		log.Fatal(err)
	}
	tokens := make([]int32, 8)
	for step := uint64(0); step < 100; step++ {
		call, err := sampler.Start(nucleus.PathAuto, runModel(tokens), parameters, step, nil)
		if err != nil {
			log.Fatal(err)
		}
		if err := call.Wait(ctx); err != nil {
			log.Fatal(err)
		}
		if err := call.Tokens(tokens, nil); err != nil {
			log.Fatal(err)
		}
		call.Close()
	}
}

// runModel stands for the model: it returns a PJRT_Buffer * with the logits.
func runModel([]int32) unsafe.Pointer { return nil }
