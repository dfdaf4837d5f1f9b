package nucleus_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"nucleus"
)

// The tests on the plugin share one sampler, because its programs take seconds to compile.
var sharedSampler struct {
	sync.Once
	sampler *nucleus.Sampler
	err     error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if sharedSampler.sampler != nil {
		if err := sharedSampler.sampler.Close(); err != nil {
			fmt.Println(err)
			status = 1
		}
	}
	os.Exit(status)
}

func pluginSampler(t testing.TB) *nucleus.Sampler {
	path := plugin(t)
	sharedSampler.Do(func() {
		sharedSampler.sampler, sharedSampler.err = nucleus.New(
			&nucleus.Options{Backend: nucleus.BackendPJRT, PluginPath: path, MaxK: 8})
	})
	if sharedSampler.err != nil {
		t.Fatal(sharedSampler.err)
	}
	return sharedSampler.sampler
}

func TestPrewarmOnPlugin(t *testing.T) {
	sampler := pluginSampler(t)
	info, err := sampler.Info()
	if err != nil || info.PlatformName != "cpu" || info.PJRTAPIMinor == 0 || info.PJRTClient == nil {
		t.Errorf("%+v, %v", info, err)
	}
	spec := &nucleus.PrewarmSpec{Rows: 1, Vocab: 300, Path: nucleus.PathBounded}
	prewarming, err := sampler.StartPrewarm(spec)
	if err != nil {
		t.Fatal(err)
	}
	// The compiler needs longer than this.
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := prewarming.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a wait of 1 ms returned %v", err)
	}
	if err := prewarming.Wait(context.Background()); err != nil {
		t.Fatal(err)
	}
	progress, err := prewarming.Progress()
	if err != nil || !progress.HasEnded || progress.Total == 0 || progress.Done != progress.Total {
		t.Errorf("%+v, %v", progress, err)
	}
	if err := prewarming.Close(); err != nil {
		t.Error(err)
	}

	// After the prewarm, a call compiles nothing.
	before, err := sampler.Stats()
	if err != nil {
		t.Fatal(err)
	}
	batch := &nucleus.Batch{Logits: nucleus.F32(make([]float32, 300)), Rows: 1, Vocab: 300, TopK: []int32{5},
		Path: nucleus.PathBounded}
	if err := sampler.Sample(batch, make([]int32, 1), nil); err != nil {
		t.Fatal(err)
	}
	after, err := sampler.Stats()
	if err != nil || after.Compiles != before.Compiles || after.Hits == before.Hits || after.Pinned == 0 {
		t.Errorf("before %+v, after %+v, %v", before, after, err)
	}

	// A context that is done cancels a prewarm.
	spec.Vocab = 301
	if err := sampler.Prewarm(ctx, spec); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a prewarm with a context that is done returned %v", err)
	}
	// After a cancel, the remaining programs are not compiled. There are many programs, so that some remain even if the
	// cancel comes late.
	prewarming, err = sampler.StartPrewarm(&nucleus.PrewarmSpec{Rows: 16, Vocab: 302, NumThreads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer prewarming.Close()
	if err := prewarming.Cancel(); err != nil {
		t.Error(err)
	}
	wantError(t, prewarming.Wait(context.Background()), nucleus.Cancelled, "", -1)
}

func TestCompileAhead(t *testing.T) {
	directory := t.TempDir()
	options := &nucleus.CompileAheadOptions{
		PluginPath: plugin(t), OutputDir: directory, RowCounts: []int{1}, Vocab: 50, MaxK: 8,
		Path: nucleus.PathBounded,
	}
	written, err := nucleus.CompileAhead(options)
	if err != nil || written == 0 {
		t.Fatalf("%d programs, %v", written, err)
	}
	sampler := newSampler(t, &nucleus.Options{
		Backend: nucleus.BackendPJRT, PluginPath: plugin(t), MaxK: 8, ProgramDir: directory,
	})
	batch := &nucleus.Batch{
		Logits: nucleus.F32(make([]float32, 50)), Rows: 1, Vocab: 50, TopK: []int32{5},
		Path: nucleus.PathBounded,
	}
	if err := sampler.Sample(batch, make([]int32, 1), nil); err != nil {
		t.Fatal(err)
	}
	stats, err := sampler.Stats()
	if err != nil || stats.Compiles != 0 || stats.Loaded == 0 {
		t.Errorf("%+v, %v", stats, err)
	}
	options.RowCounts = nil
	_, err = nucleus.CompileAhead(options)
	wantError(t, err, nucleus.InvalidArgument, "num_row_counts", -1)
}
