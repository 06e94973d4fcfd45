package router

import (
	"fmt"
	"math"
	"testing"
)

// keyShapes are keys as clients make them.
var keyShapes = map[string]func(int) string{
	"user-N":      func(i int) string { return fmt.Sprintf("user-%d", i) },
	"integers":    func(i int) string { return fmt.Sprint(i) },
	"e-mail":      func(i int) string { return fmt.Sprintf("first.last%d@example.com", i) },
	"uuid":        func(i int) string { return fmt.Sprintf("%08x-0000-4000-8000-%012x", i*2654435761, i) },
	"zero padded": func(i int) string { return fmt.Sprintf("%020d", i) },
}

func TestBucketIsFixedForEver(t *testing.T) {
	t.Parallel()
	// Computed with another implementation, in Python. A change of any of these would move live conversations.
	for _, tt := range []struct {
		key, salt string
		want      int
	}{
		{"", "", 0}, {"user-1", "canary/support-agent/run1", 9969}, {"user-2", "canary/support-agent/run1", 6562},
		{"user-1", "canary/support-agent/run2", 915}, {"a much longer key than thirty-two bytes, to reach the long path", "salt", 8991},
	} {
		if got := Bucket(tt.key, tt.salt); got != tt.want {
			t.Errorf("Bucket(%q, %q) = %d, want %d", tt.key, tt.salt, got, tt.want)
		}
	}
}

func TestShareIsWithinBinomialBounds(t *testing.T) {
	t.Parallel()
	const n = 200_000
	for shape, key := range keyShapes {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			var buckets [Buckets]int
			for i := range n {
				buckets[Bucket(key(i), "canary/a/run1")]++
			}
			below := 0
			for weight := 1; weight <= Buckets; weight++ {
				below += buckets[weight-1]
				p := float64(weight) / Buckets
				// 5.5 standard deviations: over all weights and shapes about one run in 10^4 would fail by chance, and the
				// hash is fixed, so that this one never does.
				if limit := 5.5*math.Sqrt(n*p*(1-p)) + 1; math.Abs(float64(below)-n*p) > limit {
					t.Fatalf("weight %d: %d of %d keys on the canary, want %.0f ± %.0f", weight, below, n, n*p, limit)
				}
			}
		})
	}
}

func TestSaltsAreIndependent(t *testing.T) {
	t.Parallel()
	const n, cells = 100_000, 20
	for shape, key := range keyShapes {
		for _, salts := range [][2]string{{"canary/a/run1", "canary/a/run2"}, {"a", "b"}, {"x", ""}} {
			t.Run(fmt.Sprintf("%s %v", shape, salts), func(t *testing.T) {
				t.Parallel()
				var table [cells][cells]float64
				for i := range n {
					a, b := Bucket(key(i), salts[0]), Bucket(key(i), salts[1])
					table[a*cells/Buckets][b*cells/Buckets]++
				}
				chi := 0.0
				const want = float64(n) / (cells * cells)
				for _, row := range table {
					for _, seen := range row {
						chi += (seen - want) * (seen - want) / want
					}
				}
				// 399 degrees of freedom: mean 399, standard deviation √798 ≈ 28.2; the bound is 5 deviations above.
				if chi > 540 {
					t.Errorf("chi-square %.0f over %d cells, want at most 540", chi, cells*cells)
				}
			})
		}
	}
}
