//go:build test_helper

package nucleus_test

import (
	"fmt"
	"math"
	"testing"

	"nucleus"
	"nucleus/internal/testhelper"
)

// The time of a call for one row with k = 50 and p = 0.9, from Go and from C. One thread, and the row is in the cache.
func BenchmarkSample(b *testing.B) {
	for _, vocab := range []int{1024, 128256} {
		logits := make([]float32, vocab)
		for i := range logits {
			logits[i] = 3 * float32(math.Sin(float64(i*i)))
		}
		b.Run(fmt.Sprintf("go/%d", vocab), func(b *testing.B) {
			sampler := builtin(b)
			batch := &nucleus.Batch{
				Logits: nucleus.F32(logits), Rows: 1, Vocab: vocab, TopK: []int32{50}, TopP: []float32{0.9}, Offset: []uint64{0},
			}
			tokens := make([]int32, 1)
			b.ReportAllocs()
			for b.Loop() {
				batch.Offset[0]++
				if err := sampler.Sample(batch, tokens, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("c/%d", vocab), func(b *testing.B) {
			calls := 20_000_000 / (vocab + 1000)
			for b.Loop() {
				nanoseconds, err := testhelper.CallTime(logits, calls)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(nanoseconds, "ns/call")
			}
		})
	}
}
