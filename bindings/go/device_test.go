//go:build test_helper

package nucleus_test

import (
	"context"
	"errors"
	"math"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"nucleus"
	"nucleus/internal/testhelper"
)

const deviceRows, deviceVocab, deviceSteps = 3, 50, 4

// A deviceTest has logits on the device, and their parameters on the device and on the host.
type deviceTest struct {
	sampler    *nucleus.Sampler
	parameters *nucleus.Parameters
	api        unsafe.Pointer
	logits     unsafe.Pointer
	host       nucleus.Batch
}

func newDeviceTest(t *testing.T) *deviceTest {
	d := &deviceTest{sampler: pluginSampler(t)}
	info, err := d.sampler.Info()
	if err != nil {
		t.Fatal(err)
	}
	d.api = info.PJRTAPI
	values := make([]float32, deviceRows*deviceVocab)
	for i := range values {
		values[i] = 3 * float32(math.Sin(float64(i*i)))
	}
	d.logits, err = testhelper.Upload(d.api, info.PJRTClient, unsafe.Pointer(&values[0]),
		int32(nucleus.DTypeF32),
		deviceRows, deviceVocab)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := testhelper.Destroy(d.api, d.logits); err != nil {
			t.Error(err)
		}
	})
	d.host = nucleus.Batch{
		Logits: nucleus.F32(values), Rows: deviceRows, Vocab: deviceVocab, TopK: []int32{3, 0, 40},
		TopP: []float32{0.9, 0.5, 1}, Temperature: []float32{1, 0, 2}, MinP: []float32{0, 0.1, 0.01},
		Seed: []uint64{1, 2, math.MaxUint64}, Offset: []uint64{7, 0, math.MaxUint64},
	}
	shape := &nucleus.ParametersOptions{Rows: deviceRows, Vocab: deviceVocab}
	d.parameters, err = d.sampler.NewParameters(shape)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.parameters.Close(); err != nil {
			t.Error(err)
		}
	})
	for row := range deviceRows {
		d.set(t, row, d.host.Temperature[row])
	}
	return d
}

func (d *deviceTest) set(t *testing.T, row int, temperature float32) {
	err := d.parameters.Set(row, &nucleus.RowParameters{
		TopK: d.host.TopK[row], TopP: &d.host.TopP[row], MinP: d.host.MinP[row],
		Temperature: &temperature, Seed: d.host.Seed[row], Offset: d.host.Offset[row],
	})
	if err != nil {
		t.Fatal(err)
	}
}

// hostTokens returns the tokens of a call on the built-in backend, and the arrays with one number per row.
func (d *deviceTest) hostTokens(
	t *testing.T, builtin *nucleus.Sampler, step uint64,
) ([]int32, *nucleus.DebugArrays) {
	batch := d.host
	batch.Offset = make([]uint64, deviceRows)
	for row := range batch.Offset {
		batch.Offset[row] = d.host.Offset[row] + step
	}
	tokens, debug := make([]int32, deviceRows), numbersOfRows()
	if err := builtin.SampleDebug(&batch, tokens, nil, debug); err != nil {
		t.Fatal(err)
	}
	return tokens, debug
}

func numbersOfRows() *nucleus.DebugArrays {
	return &nucleus.DebugArrays{
		GreedySampled: make([]int32, deviceRows), NextTokens: make([]int32, deviceRows),
		RandomUnnormCDFSampledHigh: make([]uint32, deviceRows),
		RandomUnnormCDFSampledLow:  make([]uint32, deviceRows),
	}
}

func equalNumbers(a, b *nucleus.DebugArrays) bool {
	for row := range deviceRows {
		if a.GreedySampled[row] != b.GreedySampled[row] || a.NextTokens[row] != b.NextTokens[row] ||
			a.RandomUnnormCDFSampledHigh[row] != b.RandomUnnormCDFSampledHigh[row] ||
			a.RandomUnnormCDFSampledLow[row] != b.RandomUnnormCDFSampledLow[row] {
			return false
		}
	}
	return true
}

// Calls on the device return the tokens and numbers of calls on the host. All of them are in flight at the same time.
func TestDeviceCalls(t *testing.T) {
	d, host := newDeviceTest(t), builtin(t)
	calls := make([]*nucleus.Call, deviceSteps)
	for step := range calls {
		call, err := d.sampler.Start(nucleus.PathAuto, d.logits, d.parameters, uint64(step),
			&nucleus.StartOptions{HostNumbers: nucleus.HostAll})
		if err != nil {
			t.Fatal(err)
		}
		calls[step] = call
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for step, call := range calls {
		wanted, wantedNumbers := d.hostTokens(t, host, uint64(step))
		if err := call.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		<-call.Done()
		if ended, err := call.IsDone(); err != nil || !ended {
			t.Errorf("ended: %v, %v", ended, err)
		}
		tokens, status := make([]int32, deviceRows), make([]nucleus.RowStatus, deviceRows)
		if err := call.Tokens(tokens, status); err != nil || !equal(tokens, wanted) ||
			status[0]|status[1]|status[2] != 0 {
			t.Errorf("step %d: tokens %v, wanted %v, status %v, %v", step, tokens, wanted, status, err)
		}
		found := numbersOfRows()
		if err := call.Numbers(found); err != nil || !equalNumbers(found, wantedNumbers) {
			t.Errorf("step %d: found %+v, wanted %+v, %v", step, found, wantedNumbers, err)
		}
		buffer, err := call.TakeBuffer(nucleus.BufferTokens)
		if err != nil {
			t.Fatal(err)
		}
		_, err = call.TakeBuffer(nucleus.BufferTokens)
		wantError(t, err, nucleus.InvalidArgument, "which", -1)
		if err := errors.Join(call.Close(), call.Close()); err != nil {
			t.Error(err)
		}
		// The buffer outlives its call.
		if tokens, err := testhelper.Download(d.api, buffer, deviceRows); err != nil ||
			!equal(tokens, wanted) {
			t.Errorf("step %d: tokens in the buffer %v, wanted %v, %v", step, tokens, wanted, err)
		}
		if err := testhelper.Destroy(d.api, buffer); err != nil {
			t.Error(err)
		}
		// The same step in one call.
		err = d.sampler.SampleOnDevice(nucleus.PathAuto, d.logits, d.parameters, uint64(step), tokens, nil)
		if err != nil ||
			!equal(tokens, wanted) {
			t.Errorf("step %d: SampleOnDevice %v, wanted %v, %v", step, tokens, wanted, err)
		}
	}
}

// A wait ends when its context is done. The call continues.
func TestWaitWithContext(t *testing.T) {
	const rows, vocab = 8, 100_000
	sampler := pluginSampler(t)
	info, err := sampler.Info()
	if err != nil {
		t.Fatal(err)
	}
	values := make([]float32, rows*vocab)
	logits, err := testhelper.Upload(info.PJRTAPI, info.PJRTClient, unsafe.Pointer(&values[0]),
		int32(nucleus.DTypeF32), rows, vocab)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := testhelper.Destroy(info.PJRTAPI, logits); err != nil {
			t.Error(err)
		}
	}()
	parameters, err := sampler.NewParameters(&nucleus.ParametersOptions{Rows: rows, Vocab: vocab})
	if err != nil {
		t.Fatal(err)
	}
	defer parameters.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var last *nucleus.Call
	// On a busy machine a call can end before the test waits for it. So the test tries several times.
	for attempt := 0; ; attempt++ {
		// The calls share the processors, so the last one ends late.
		for step := range 8 {
			last, err = sampler.Start(nucleus.PathArbitrary, logits, parameters, uint64(step), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer last.Close()
		}
		err := last.Wait(ctx)
		if errors.Is(err, context.Canceled) {
			break
		}
		if err != nil || attempt == 20 {
			t.Fatalf("a wait with a context that is done returned %v", err)
		}
	}
	ctx, cancel = context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := last.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	tokens := make([]int32, rows)
	if err := last.Tokens(tokens, nil); err != nil || tokens[0] < 0 || tokens[0] >= vocab {
		t.Errorf("tokens %v, %v", tokens, err)
	}
}

func TestErrorsOfDeviceCalls(t *testing.T) {
	d := newDeviceTest(t)
	tokens := make([]int32, deviceRows)
	call, err := d.sampler.Start(nucleus.PathAuto, d.logits, d.parameters, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	wantError(t, call.Tokens(tokens[:2], nil), nucleus.InvalidArgument, "tokens", -1)
	wantError(t, call.Tokens(tokens, make([]nucleus.RowStatus, 1)), nucleus.InvalidArgument, "row_status", -1)
	wantError(t, call.Tokens(tokens, make([]nucleus.RowStatus, deviceRows)), nucleus.InvalidArgument,
		"row_status", -1)
	wantError(t, call.Numbers(numbersOfRows()), nucleus.InvalidArgument, "call", -1)
	wantError(t, call.Numbers(&nucleus.DebugArrays{NextTokens: make([]int32, 1)}), nucleus.InvalidArgument,
		"next_tokens", -1)
	wantError(t, call.Numbers(&nucleus.DebugArrays{TopkIndicesK: make([]int32, 1)}), nucleus.InvalidArgument,
		"debug", -1)
	_, err = call.TakeBuffer(nucleus.BufferTopkLogits)
	wantError(t, err, nucleus.InvalidArgument, "which", -1)
	if err := call.Close(); err != nil {
		t.Error(err)
	}
	for _, err := range []error{call.Wait(context.Background()), call.Tokens(tokens, nil)} {
		wantError(t, err, nucleus.InvalidArgument, "call", -1)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	wantError(t, call.Wait(ctx), nucleus.InvalidArgument, "call", -1)

	wantError(t, d.parameters.Set(deviceRows, &nucleus.RowParameters{}), nucleus.InvalidArgument, "row", -1)
	wantError(t, d.parameters.Set(-1, &nucleus.RowParameters{}), nucleus.InvalidArgument, "row", -1)
	d.set(t, 1, -1)
	_, err = d.sampler.Start(nucleus.PathAuto, d.logits, d.parameters, 0, nil)
	wantError(t, err, nucleus.InvalidArgument, "temperature", 1)
	status := make([]nucleus.RowStatus, deviceRows)
	err = d.sampler.SampleOnDevice(nucleus.PathAuto, d.logits, d.parameters, 0, tokens, status)
	if err != nil || status[1] != nucleus.RowBadParameter || tokens[1] != -1 || status[0] != 0 ||
		tokens[0] < 0 {
		t.Errorf("tokens %v, status %v, %v", tokens, status, err)
	}
	wide, err := d.sampler.NewParameters(&nucleus.ParametersOptions{Rows: deviceRows, Vocab: deviceVocab + 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = d.sampler.Start(nucleus.PathAuto, d.logits, wide, 0, nil)
	wantError(t, err, nucleus.InvalidArgument, "logits", -1)
	if err := wide.Close(); err != nil {
		t.Error(err)
	}
	wantError(t, wide.Set(0, &nucleus.RowParameters{}), nucleus.InvalidArgument, "parameters", -1)
}

// Calls, parameters and samplers that nobody closed are freed while other calls run.
func TestDeviceObjectsAreCollected(t *testing.T) {
	d, host := newDeviceTest(t), builtin(t)
	wanted, _ := d.hostTokens(t, host, 1)
	for range 50 {
		call, err := d.sampler.Start(nucleus.PathAuto, d.logits, d.parameters, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		done := call.Done()
		call = nil
		runtime.GC()
		// The callback runs even if the call has become unreachable.
		<-done
		tokens := make([]int32, deviceRows)
		err = d.sampler.SampleOnDevice(nucleus.PathAuto, d.logits, d.parameters, 1, tokens, nil)
		if err != nil || !equal(tokens, wanted) {
			t.Errorf("tokens %v, wanted %v, %v", tokens, wanted, err)
		}
	}
}
