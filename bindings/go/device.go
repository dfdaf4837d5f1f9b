package nucleus

/*
#include <nucleus.h>
#include "callbacks.h"
#include "flat.h"
*/
import "C"

import (
	"context"
	"math"
	"runtime"
	"runtime/cgo"
	"sync"
	"unsafe"
)

// ParametersOptions are the shape of a batch on the device, and its options. Set at least Rows and Vocab.
type ParametersOptions struct {
	// Rows is the number of rows of the logits, at least 1.
	Rows int
	// Vocab is the number of elements per row, 1 to 16777216.
	Vocab int
	DType DType
	// KeepTies is as in Batch.
	KeepTies bool
	// ReplaceVal is as in DebugArrays.
	ReplaceVal *float32
}

// RowParameters are the sampling parameters of one row. The zero value of each field is its default. Each field has
// the meaning of the field with the same name in Batch.
type RowParameters struct {
	// Seed is the seed of the row's random words. Offset is their offset at step 0. Give each request its own seed. Rows
	// with equal seed and offset use the same random number.
	Seed, Offset uint64
	TopK         int32
	MinP         float32
	// TopP is nil if top-p is off. Temperature is nil for the temperature 1. Float32 returns a pointer to a value.
	TopP, Temperature *float32
}

// Float32 returns a pointer to a value, for the optional fields of this package.
func Float32(value float32) *float32 { return &value }

// optional returns the flag and the value of an optional field.
func optional(value *float32) (C.int32_t, C.float) {
	if value == nil {
		return 0, 0
	}
	return 1, C.float(*value)
}

// Parameters are the parameters of the rows of a batch on the device. Any number of goroutines may use them at the same
// time.
type Parameters struct {
	lifetime
	c       *C.nuc_parameters
	rows    int
	cleanup runtime.Cleanup
}

// NewParameters creates the parameters of a batch on the sampler's device. Every row has the defaults. The sampler must
// have a plugin. The caller calls Close.
func (s *Sampler) NewParameters(options *ParametersOptions) (*Parameters, error) {
	var a arena
	useReplaceVal, replaceVal := optional(options.ReplaceVal)
	c := &C.nuc_parameters_options{
		struct_size:     C.sizeof_nuc_parameters_options,
		num_rows:        a.size("num_rows", options.Rows),
		vocab:           a.size("vocab", options.Vocab),
		dtype:           C.nuc_dtype(options.DType),
		keep_ties:       flag(options.KeepTies),
		use_replace_val: useReplaceVal,
		replace_val:     replaceVal,
	}
	if a.err != nil {
		return nil, a.err
	}
	p := &Parameters{rows: options.Rows}
	err := s.use(func(s *C.nuc_sampler, e *C.nuc_error) C.nuc_status {
		return C.nuc_parameters_create(s, c, &p.c, e)
	})
	if err != nil {
		return nil, err
	}
	p.init()
	p.cleanup = runtime.AddCleanup(p, func(c *C.nuc_parameters) { go C.nuc_parameters_destroy(c, nil) }, p.c)
	return p, nil
}

// Set sets the parameters of a row, counted from 0, for calls that start later. It accepts impossible values. Calls
// with such values fail, or report the row as RowBadParameter: see HostNumbers.
func (p *Parameters) Set(row int, parameters *RowParameters) error {
	if !p.acquire() {
		return errClosed("parameters")
	}
	defer p.release()
	useTopP, topP := optional(parameters.TopP)
	useTemperature, temperature := optional(parameters.Temperature)
	var a arena
	index := a.size("row", row)
	if a.err != nil {
		return a.err
	}
	c := &C.nuc_row_parameters{
		struct_size:     C.sizeof_nuc_row_parameters,
		seed:            C.uint64_t(parameters.Seed),
		offset:          C.uint64_t(parameters.Offset),
		top_k:           C.int32_t(parameters.TopK),
		min_p:           C.float(parameters.MinP),
		use_top_p:       useTopP,
		top_p:           topP,
		use_temperature: useTemperature,
		temperature:     temperature,
	}
	return call(func(e *C.nuc_error) C.nuc_status { return C.nuc_parameters_set(p.c, index, c, e) })
}

// Close frees the parameters. Calls that were started with them continue.
func (p *Parameters) Close() error {
	return p.close(func() error {
		p.cleanup.Stop()
		return call(func(e *C.nuc_error) C.nuc_status { return C.nuc_parameters_destroy(p.c, e) })
	})
}

// StartOptions are the options of Start. The zero value of each field selects its default.
type StartOptions struct {
	// HostNumbers selects the numbers that are copied to the host. Default: HostTokens.
	HostNumbers HostNumbers
	// DebugArrays selects the debug arrays that stay on the device as buffers.
	DebugArrays DebugBits
	// DonateLogits makes Start delete the contents of the buffer of logits.
	DonateLogits bool
}

// A Call is a call that was started on the device. Any number of goroutines may use it at the same time.
type Call struct {
	lifetime
	c       *C.nuc_call
	rows    int
	cleanup runtime.Cleanup
	doneOne sync.Once
	done    chan struct{}
	doneErr error
}

// Start starts to sample logits on the device. logits is a PJRT_Buffer * of the sampler's client, [rows, vocab] or
// [rows, 1, vocab], on the sampler's device. Start compiles missing programs, and does not wait for other calls. After
// it has returned, the caller may destroy the buffer. step is added to the offset of every row. If options is nil,
// every option has its default. The caller calls Close on the Call.
//
// The package cannot check that logits is a live buffer of the client.
func (s *Sampler) Start(
	path Path, logits unsafe.Pointer, parameters *Parameters, step uint64, options *StartOptions,
) (*Call, error) {
	if options == nil {
		options = &StartOptions{}
	}
	if !parameters.acquire() {
		return nil, errClosed("parameters")
	}
	defer parameters.release()
	o := &C.nuc_start_options{
		struct_size:   C.sizeof_nuc_start_options,
		host_numbers:  C.nuc_host_numbers(options.HostNumbers),
		debug_arrays:  C.uint32_t(options.DebugArrays),
		donate_logits: flag(options.DonateLogits),
	}
	c := &Call{rows: parameters.rows, done: make(chan struct{})}
	err := s.use(func(s *C.nuc_sampler, e *C.nuc_error) C.nuc_status {
		return C.nuc_sample_start(s, C.nuc_path(path), logits, parameters.c, C.uint64_t(step), o, &c.c, e)
	})
	if err != nil {
		return nil, err
	}
	c.init()
	c.cleanup = runtime.AddCleanup(c, func(c *C.nuc_call) { go C.nuc_call_destroy(c, nil) }, c.c)
	return c, nil
}

// SampleOnDevice samples logits on the device and waits for the tokens. The arguments are those of Start and Tokens. If
// rowStatus is not nil, an impossible parameter affects only its own row.
func (s *Sampler) SampleOnDevice(
	path Path, logits unsafe.Pointer, parameters *Parameters, step uint64, tokens []int32,
	rowStatus []RowStatus,
) error {
	if !parameters.acquire() {
		return errClosed("parameters")
	}
	defer parameters.release()
	if err := checkRows(parameters.rows, tokens, rowStatus); err != nil {
		return err
	}
	return s.use(func(s *C.nuc_sampler, e *C.nuc_error) C.nuc_status {
		return C.nuc_sample_on_device(s, C.nuc_path(path), logits, parameters.c, C.uint64_t(step),
			(*C.int32_t)(unsafe.SliceData(tokens)), (*C.uint32_t)(unsafe.SliceData(rowStatus)), e)
	})
}

func checkRows(rows int, tokens []int32, rowStatus []RowStatus) error {
	if err := checkLength("tokens", false, len(tokens), rows); err != nil {
		return err
	}
	return checkLength("row_status", rowStatus == nil, len(rowStatus), rows)
}

// use runs a function of the library with the call.
func (c *Call) use(function func(*C.nuc_call, *C.nuc_error) C.nuc_status) error {
	if !c.acquire() {
		return errClosed("call")
	}
	defer c.release()
	return call(func(e *C.nuc_error) C.nuc_status { return function(c.c, e) })
}

// IsDone reports whether the call has ended. A call that failed has also ended. IsDone does not wait.
func (c *Call) IsDone() (bool, error) {
	var done C.int32_t
	err := c.use(func(c *C.nuc_call, e *C.nuc_error) C.nuc_status { return C.nuc_call_is_done(c, &done, e) })
	return done != 0, err
}

// Done returns a channel that is closed when the call has ended. If Close was called before the first Done, the channel
// stays open.
func (c *Call) Done() <-chan struct{} {
	c.doneOne.Do(func() {
		handle := cgo.NewHandle(c.done)
		c.doneErr = c.use(func(c *C.nuc_call, e *C.nuc_error) C.nuc_status {
			return C.nucleus_go_call_on_done(c, C.uintptr_t(handle), e)
		})
		// After an error, the callback does not run.
		if c.doneErr != nil {
			handle.Delete()
		}
	})
	return c.done
}

// Wait waits until the call has ended, or until ctx is done. In the second case it returns ctx.Err(), and the call
// continues. Otherwise it returns the result of the call.
func (c *Call) Wait(ctx context.Context) error {
	timeout := C.uint64_t(math.MaxUint64)
	if ctx.Done() != nil {
		ended, err := c.IsDone()
		if err != nil {
			return err
		}
		if !ended {
			done := c.Done()
			if c.doneErr != nil {
				return c.doneErr
			}
			select {
			case <-done:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		timeout = 0
	}
	return c.use(func(c *C.nuc_call, e *C.nuc_error) C.nuc_status { return C.nuc_call_wait(c, timeout, e) })
}

// Tokens waits until the call has ended, and writes the tokens of its rows: -1 if a row has none. rowStatus receives
// the bits of each row. It may be nil, and needs HostAll. To limit the time, call Wait first.
func (c *Call) Tokens(tokens []int32, rowStatus []RowStatus) error {
	if err := checkRows(c.rows, tokens, rowStatus); err != nil {
		return err
	}
	return c.use(func(c *C.nuc_call, e *C.nuc_error) C.nuc_status {
		return C.nuc_call_get_tokens(c, (*C.int32_t)(unsafe.SliceData(tokens)),
			(*C.uint32_t)(unsafe.SliceData(rowStatus)), e)
	})
}

// Numbers waits until the call has ended, and writes the debug arrays with one number per row: GreedySampled, the two
// halves of r, and NextTokens. The other fields must be nil, because those arrays are on the device. The call needs
// HostAll.
func (c *Call) Numbers(debug *DebugArrays) error {
	if debug.TopkLogitsUnsorted.pointer != nil || debug.TopkToppUnnormProbsI32Unsorted != nil ||
		debug.TopkIndicesK != nil || debug.TopkLogitsK.pointer != nil ||
		debug.TopkToppUnnormProbsI32K != nil {
		return invalid("debug", "contains an array that is on the device; TakeBuffer returns it")
	}
	if err := debug.check(c.rows, 0, 0, DTypeF32); err != nil {
		return err
	}
	return c.use(func(c *C.nuc_call, e *C.nuc_error) C.nuc_status {
		return C.nucleus_go_get_numbers(c, (*C.int32_t)(unsafe.SliceData(debug.GreedySampled)),
			(*C.uint32_t)(unsafe.SliceData(debug.RandomUnnormCDFSampledHigh)),
			(*C.uint32_t)(unsafe.SliceData(debug.RandomUnnormCDFSampledLow)),
			(*C.int32_t)(unsafe.SliceData(debug.NextTokens)), e)
	})
}

// A Buffer is a result of a call on the device. The arrays are dense and row-major.
type Buffer int32

const (
	// BufferTokens contains the tokens, S32 [rows].
	BufferTokens Buffer = C.NUC_BUFFER_TOKENS
	// BufferTopkLogits contains TopkLogitsUnsorted, as bits of the type of the logits: S32 for f32, U16 for bf16 and f16.
	BufferTopkLogits Buffer = C.NUC_BUFFER_TOPK_LOGITS
	// BufferTopkToppProbs contains TopkToppUnnormProbsI32Unsorted, S32 [rows, vocab].
	BufferTopkToppProbs Buffer = C.NUC_BUFFER_TOPK_TOPP_PROBS
	// BufferTopkIndicesK contains TopkIndicesK, S32 [rows, min(MaxK, vocab)].
	BufferTopkIndicesK Buffer = C.NUC_BUFFER_TOPK_INDICES_K
	// BufferTopkLogitsK contains TopkLogitsK, [rows, min(MaxK, vocab)], as bits of the type of the logits.
	BufferTopkLogitsK Buffer = C.NUC_BUFFER_TOPK_LOGITS_K
	// BufferTopkToppProbsK contains TopkToppUnnormProbsI32K, S32 [rows, min(MaxK, vocab)].
	BufferTopkToppProbsK Buffer = C.NUC_BUFFER_TOPK_TOPP_PROBS_K
)

// TakeBuffer gives a result of the call to the caller, as a PJRT_Buffer *. The caller destroys it with
// PJRT_Buffer_Destroy before the client is destroyed. Each buffer can be taken once. TakeBuffer does not wait for the device.
func (c *Call) TakeBuffer(which Buffer) (unsafe.Pointer, error) {
	var buffer unsafe.Pointer
	err := c.use(func(c *C.nuc_call, e *C.nuc_error) C.nuc_status {
		return C.nuc_call_take_buffer(c, C.nuc_buffer(which), &buffer, e)
	})
	return buffer, err
}

// Close frees the call and its buffers that were not taken. It waits until the device has finished the call.
func (c *Call) Close() error {
	return c.close(func() error {
		c.cleanup.Stop()
		return call(func(e *C.nuc_error) C.nuc_status { return C.nuc_call_destroy(c.c, e) })
	})
}
