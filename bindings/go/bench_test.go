//go:build test_helper

package nucleus_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"nucleus"
	"nucleus/internal/testhelper"
)

// The time of a call for one row with k = 50 and p = 0.9, from Go and from C. One thread, and the row is in the
// cache. The benchmark alternates between the two and reports the smallest time of each, so that other processes have
// less effect.
func BenchmarkSample(b *testing.B) {
	for _, vocab := range []int{1024, 128256} {
		b.Run(fmt.Sprint(vocab), func(b *testing.B) {
			logits := make([]float32, vocab)
			for i := range logits {
				logits[i] = 3 * float32(math.Sin(float64((i+1)*(i+1))))
			}
			sampler := builtin(b)
			batch := &nucleus.Batch{
				Logits: nucleus.F32(logits), Rows: 1, Vocab: vocab, TopK: []int32{50}, TopP: []float32{0.9},
				Offset: []uint64{0},
			}
			tokens := make([]int32, 1)
			calls := 2_000_000 / (vocab + 1000)
			fromGo, fromC := math.Inf(1), math.Inf(1)
			for b.Loop() {
				start := time.Now()
				for range calls {
					batch.Offset[0]++
					if err := sampler.Sample(batch, tokens, nil); err != nil {
						b.Fatal(err)
					}
				}
				fromGo = min(fromGo, float64(time.Since(start).Nanoseconds())/float64(calls))
				nanoseconds, err := testhelper.CallTime(sampler.Pointer(), logits, calls)
				if err != nil {
					b.Fatal(err)
				}
				fromC = min(fromC, nanoseconds)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(fromGo, "ns/call-from-Go")
			b.ReportMetric(fromC, "ns/call-from-C")
		})
	}
}
