package router

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"
)

// chance is how likely a test here would fail with a perfect hash, had keys and salts been drawn at random. They are fixed: what
// passes once passes always.
const chance = 1e-6

// keyShapes are keys as clients make them, by number.
var keyShapes = map[string]func(int) string{
	"user-N":   func(i int) string { return "user-" + strconv.Itoa(i) },
	"integers": strconv.Itoa,
	"e-mail":   func(i int) string { return "first.last" + strconv.Itoa(i) + "@example.com" },
	"uuid": func(i int) string {
		return fmt.Sprintf("%08x-%04x-4%03x-8%03x-%012x", i*2654435761&0xffffffff, i*40503&0xffff, i&0xfff, i*7&0xfff, uint64(i)*0x9e3779b97f4a7c15>>16)
	},
	"long": func(i int) string {
		return "tenant-7/region-eu/" + strings.Repeat("conversation-", i%5) + strconv.Itoa(i)
	},
}

// manyKeys are a million keys of each shape, one shape at a time, and of random UUIDs.
func manyKeys(t *testing.T, test func(t *testing.T, keys []string)) {
	n := 1_000_000
	if underRace {
		n /= 10
	}
	chaos := rand.New(rand.NewPCG(1, 2))
	shapes := map[string]func(int) string{"random uuid": func(int) string {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:], chaos.Uint64())
		binary.BigEndian.PutUint64(b[8:], chaos.Uint64())
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
		x := hex.EncodeToString(b[:])
		return x[:8] + "-" + x[8:12] + "-" + x[12:16] + "-" + x[16:20] + "-" + x[20:]
	}}
	for shape, key := range keyShapes {
		shapes[shape] = key
	}
	for shape, key := range shapes {
		t.Run(shape, func(t *testing.T) {
			t.Parallel()
			keys := make([]string, n)
			for i := range keys {
				keys[i] = key(i)
			}
			test(t, keys)
		})
	}
}

func TestBucketIsFixedForEver(t *testing.T) {
	t.Parallel()
	// Computed with another implementation, in Python. A change of any of these would move live conversations.
	const salt = "canary/support-agent/run1"
	for _, tt := range []struct {
		key, salt string
		want      int
	}{
		{"", "", 0}, {"user-1", salt, 9969}, {"user-2", salt, 6562}, {"user-1", "canary/support-agent/run2", 915},
		{"a much longer key than thirty-two bytes, to reach the long path", "salt", 8991},
	} {
		if got := Bucket(tt.key, tt.salt); got != tt.want {
			t.Errorf("Bucket(%q, %q) = %d, want %d", tt.key, tt.salt, got, tt.want)
		}
	}
	// The beginning of the SHA-256 of the buckets of the first 10,000 keys, as 16 bits each, the low byte first.
	for shape, want := range map[string]string{
		"user-N": "b350acb2e298bc39", "integers": "f048c92537b99d80", "e-mail": "eccd9f93c8faa262", "uuid": "78192a2e17484240", "long": "093bad02e41977ea",
	} {
		var buckets []byte
		for i := range 10_000 {
			buckets = binary.LittleEndian.AppendUint16(buckets, uint16(Bucket(keyShapes[shape](i), salt)))
		}
		if sum := sha256.Sum256(buckets); hex.EncodeToString(sum[:8]) != want {
			t.Errorf("%s: buckets hash to %x, want %s", shape, sum[:8], want)
		}
	}
}

func TestShareIsWithinBinomialBounds(t *testing.T) {
	t.Parallel()
	manyKeys(t, func(t *testing.T, keys []string) {
		var buckets [Buckets]int
		for _, key := range keys {
			buckets[Bucket(key, "canary/a/run1")]++
		}
		n := float64(len(keys))
		below, chi := 0.0, 0.0
		for weight := 1; weight <= Buckets; weight++ {
			seen, want := float64(buckets[weight-1]), n/Buckets
			below += seen
			chi += (seen - want) * (seen - want) / want
			p := float64(weight) / Buckets
			if limit := 5*math.Sqrt(n*p*(1-p)) + 1; math.Abs(below-n*p) > limit {
				t.Fatalf("weight %d: %.0f of %.0f keys on the canary, want %.0f ± %.0f", weight, below, n, n*p, limit)
			}
		}
		// Neither more uneven than chance, nor more even.
		if p := (distuv.ChiSquared{K: Buckets - 1}).Survival(chi); p < chance || p > 1-chance {
			t.Errorf("chi-square of the buckets %.0f with %d degrees of freedom, p = %g", chi, Buckets-1, p)
		}
	})
}

func TestSaltsAreIndependent(t *testing.T) {
	t.Parallel()
	salts := [][2]string{{"canary/a/run1", "canary/a/run2"}, {"a", "b"}, {"x", ""}}
	manyKeys(t, func(t *testing.T, keys []string) {
		for _, salt := range salts {
			const cells = 50
			var table [cells][cells]float64
			var both [2][2]float64 // who is among the first 5 % of either
			for _, key := range keys {
				a, b := Bucket(key, salt[0]), Bucket(key, salt[1])
				table[a*cells/Buckets][b*cells/Buckets]++
				both[min(1, a/500)][min(1, b/500)]++
			}
			rows, first := make([][]float64, cells), make([][]float64, 2)
			for i := range table {
				rows[i] = table[i][:]
			}
			for i := range both {
				first[i] = both[i][:]
			}
			if p := independence(rows); p < chance || p > 1-chance {
				t.Errorf("salts %q: buckets depend on each other, p = %g", salt, p)
			}
			if p := independence(first); p < chance {
				t.Errorf("salts %q: who is in one rollout at 5 %% is likelier, or less likely, in the other: p = %g for %v", salt, p, both)
			}
		}
	})
}

// independence is the p value of Pearson's chi-square test on a square contingency table.
func independence(table [][]float64) float64 {
	k := len(table)
	rows, columns, n := make([]float64, k), make([]float64, k), 0.0
	for i, row := range table {
		for j, seen := range row {
			rows[i] += seen
			columns[j] += seen
			n += seen
		}
	}
	chi := 0.0
	for i, row := range table {
		for j, seen := range row {
			want := rows[i] * columns[j] / n
			chi += (seen - want) * (seen - want) / want
		}
	}
	return distuv.ChiSquared{K: float64((k - 1) * (k - 1))}.Survival(chi)
}

func TestIndependenceSeesDependence(t *testing.T) {
	t.Parallel()
	if p := independence([][]float64{{600, 400}, {400, 600}}); p > 1e-15 {
		t.Errorf("p = %g for a table that is far from independent", p)
	}
	if p := independence([][]float64{{500, 500}, {510, 490}}); math.Abs(p-0.6547) > 0.0001 { // R: chisq.test(m, correct=FALSE)
		t.Errorf("p = %g, want 0.6547", p)
	}
	// What the finaliser is for: without it two salts only translate the buckets.
	unmixed := func(key, salt string) int { return int(uint64(Bucket(key, "")+Bucket(salt, "")) % Buckets) }
	table := [][]float64{{0, 0}, {0, 0}}
	for i := range 10_000 {
		key := strconv.Itoa(i)
		table[min(1, unmixed(key, "a")/500)][min(1, unmixed(key, "b")/500)]++
	}
	if p := independence(table); p > chance {
		t.Errorf("p = %g for translated buckets", p)
	}
}

func TestNobodyIsLostWhileTheWeightRises(t *testing.T) {
	t.Parallel()
	weights := []int{0, 1, 10, 100, 500, 1500, 5000, 9999, 10000}
	manyKeys(t, func(t *testing.T, keys []string) {
		r, _ := newTestRouter(t)
		on, now := make([]bool, len(keys)), 0
		for step, weight := range weights {
			mustSet(t, r, canaryRoute(weight, int64(step)))
			for i, key := range keys {
				d, err := r.Decide(agent, Request{Key: key})
				if err != nil || d.Canary != (d.Version == "v42") || d.Canary != (d.Bucket < weight) || on[i] && !d.Canary {
					t.Fatalf("weight %d, %s, on the canary before: %t: %+v, %v", weight, key, on[i], d, err)
				}
				if d.Canary && !on[i] {
					on[i] = true
					now++
				}
			}
			n, p := float64(len(keys)), float64(weight)/Buckets
			if limit := 5*math.Sqrt(n*p*(1-p)) + 1; math.Abs(float64(now)-n*p) > limit || weight == Buckets && now != len(keys) {
				t.Errorf("weight %d: %d keys on the canary, want %.0f ± %.0f", weight, now, n*p, limit)
			}
		}
	})
}
