package nucleus

/*
#include <nucleus.h>
*/
import "C"

import (
	"context"
	"math"
	"runtime"
)

// A HostNumbers selects the numbers that a call on the device copies to the host.
type HostNumbers int32

const (
	// HostTokens selects the tokens. If a row has impossible parameters, Start fails.
	HostTokens HostNumbers = C.NUC_HOST_TOKENS
	// HostAll selects every number of a row. An impossible parameter affects only its own row: see RowBadParameter.
	HostAll HostNumbers = C.NUC_HOST_ALL
	// HostNone selects no numbers. The tokens stay on the device.
	HostNone HostNumbers = C.NUC_HOST_NONE
)

// A LogitsPlace is the place of the logits of calls.
type LogitsPlace int32

const (
	// LogitsOnHost means host memory, for the methods that take a Batch.
	LogitsOnHost LogitsPlace = C.NUC_LOGITS_ON_HOST
	// LogitsOnDevice means a PJRT buffer, for Start and SampleOnDevice.
	LogitsOnDevice LogitsPlace = C.NUC_LOGITS_ON_DEVICE
)

// A PrewarmSpec describes the calls to compile programs for. Set at least Rows and Vocab.
type PrewarmSpec struct {
	Path  Path
	DType DType
	// Rows is the largest number of rows of a call, or, with logits on a device, the number of rows of the buffer.
	Rows int
	// Vocab is the number of elements per row, 1 to 16777216.
	Vocab int
	// KeepTies is the value that calls will pass.
	KeepTies bool
	// DebugArrays are the arrays that calls will request.
	DebugArrays DebugBits
	// Logits is the place of the logits.
	Logits LogitsPlace
	// HasMiddleDimension means that the buffer of the logits has the dimensions [rows, 1, vocab].
	HasMiddleDimension bool
	// HostNumbers is the value of StartOptions.HostNumbers. Must be 0 if the logits are in host memory.
	HostNumbers HostNumbers
	// NumThreads is the largest number of programs that are compiled at the same time. Default: one per core.
	NumThreads int
}

func (p *PrewarmSpec) c() (*C.nuc_prewarm_spec, error) {
	var a arena
	return &C.nuc_prewarm_spec{
		struct_size:          C.sizeof_nuc_prewarm_spec,
		path:                 C.nuc_path(p.Path),
		dtype:                C.nuc_dtype(p.DType),
		num_rows:             a.size("num_rows", p.Rows),
		vocab:                a.size("vocab", p.Vocab),
		keep_ties:            flag(p.KeepTies),
		debug_arrays:         C.uint32_t(p.DebugArrays),
		logits:               C.nuc_logits_place(p.Logits),
		has_middle_dimension: flag(p.HasMiddleDimension),
		host_numbers:         C.nuc_host_numbers(p.HostNumbers),
		num_threads:          a.size("num_threads", p.NumThreads),
	}, a.err
}

// Prewarm compiles every program that the calls described by spec can need, so that no later call waits for the
// compiler. The built-in backend compiles nothing. The programs stay in memory until the sampler is destroyed.
//
// If ctx is done, Prewarm cancels the prewarm, waits for the compilations that are running, and returns ctx.Err().
func (s *Sampler) Prewarm(ctx context.Context, spec *PrewarmSpec) error {
	if ctx.Done() == nil {
		c, err := spec.c()
		if err != nil {
			return err
		}
		return s.use(func(s *C.nuc_sampler, e *C.nuc_error) C.nuc_status { return C.nuc_prewarm(s, c, e) })
	}
	prewarming, err := s.StartPrewarm(spec)
	if err != nil {
		return err
	}
	defer prewarming.Close()
	return prewarming.Wait(ctx)
}

// StartPrewarm starts Prewarm in the background. Calls can run at the same time. The caller calls Close.
func (s *Sampler) StartPrewarm(spec *PrewarmSpec) (*Prewarming, error) {
	c, err := spec.c()
	if err != nil {
		return nil, err
	}
	w := &prewarmWait{done: make(chan struct{})}
	err = s.use(func(s *C.nuc_sampler, e *C.nuc_error) C.nuc_status {
		return C.nuc_prewarm_start(s, c, &w.c, e)
	})
	if err != nil {
		return nil, err
	}
	go func() {
		w.err = call(func(e *C.nuc_error) C.nuc_status {
			return C.nuc_prewarming_wait(w.c, math.MaxUint64, e)
		})
		close(w.done)
	}()
	p := &Prewarming{wait: w}
	p.init()
	p.cleanup = runtime.AddCleanup(p, func(w *prewarmWait) { go w.destroy() }, w)
	return p, nil
}

// A prewarmWait has the goroutine that waits for a prewarm. It is separate from the Prewarming, so that the goroutine
// does not keep the Prewarming reachable.
type prewarmWait struct {
	c    *C.nuc_prewarming
	done chan struct{}
	// The result. It is written before done is closed.
	err error
}

// destroy cancels the prewarm, waits for its end, and frees it.
func (w *prewarmWait) destroy() error {
	C.nuc_prewarming_cancel(w.c, nil)
	// No other call may use the handle when it is destroyed.
	<-w.done
	return call(func(e *C.nuc_error) C.nuc_status { return C.nuc_prewarming_destroy(w.c, e) })
}

// A Prewarming is a prewarm that runs in the background. It keeps the sampler's backend alive, so the sampler can be
// closed first.
type Prewarming struct {
	lifetime
	wait    *prewarmWait
	cleanup runtime.Cleanup
}

// A PrewarmProgress is the progress of a prewarm.
type PrewarmProgress struct {
	// Done is the number of programs that are ready.
	Done int
	// Total is the number of programs of the prewarm. 0 on the built-in backend.
	Total int
	// HasEnded reports whether the prewarm has ended.
	HasEnded bool
}

// Progress returns the progress. It does not wait.
func (p *Prewarming) Progress() (PrewarmProgress, error) {
	if !p.acquire() {
		return PrewarmProgress{}, errClosed("prewarming")
	}
	defer p.release()
	c := &C.nuc_prewarm_progress{struct_size: C.sizeof_nuc_prewarm_progress}
	err := call(func(e *C.nuc_error) C.nuc_status { return C.nuc_prewarming_get_progress(p.wait.c, c, e) })
	return PrewarmProgress{int(c.done), int(c.total), c.has_ended != 0}, err
}

// Done returns a channel that is closed when the prewarm has ended.
func (p *Prewarming) Done() <-chan struct{} { return p.wait.done }

// Wait waits until the prewarm has ended, or until ctx is done. In the second case it returns ctx.Err(), and the
// prewarm continues. Otherwise it returns the result of the prewarm: nil, an error of a compilation, or an error with
// the status Cancelled.
func (p *Prewarming) Wait(ctx context.Context) error {
	select {
	case <-p.wait.done:
		return p.wait.err
	default:
	}
	select {
	case <-p.wait.done:
		return p.wait.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Cancel cancels the prewarm. The compilations that are running finish, and no further ones start. Cancel does not
// wait.
func (p *Prewarming) Cancel() error {
	if !p.acquire() {
		return errClosed("prewarming")
	}
	defer p.release()
	return call(func(e *C.nuc_error) C.nuc_status { return C.nuc_prewarming_cancel(p.wait.c, e) })
}

// Close cancels the prewarm if it has not ended, waits for the compilations that are running, and frees the prewarm.
// Programs that were compiled stay in memory. Close every prewarm before the process ends. Many plugins crash if the
// process ends during a compilation. Close must not be called in the callback of SetLog.
func (p *Prewarming) Close() error {
	return p.close(func() error {
		p.cleanup.Stop()
		return p.wait.destroy()
	})
}
