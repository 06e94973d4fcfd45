package analysis

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

func trimFloat(x float64) string { return strconv.FormatFloat(x, 'g', -1, 64) }

// checks reads checks of one role and stage.
func checks(t testing.TB, role Role, stage int, texts ...string) []RoleCheck {
	t.Helper()
	var out []RoleCheck
	for _, text := range texts {
		c, err := ParseCheck(text)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, RoleCheck{Check: c, Role: role, Stage: stage})
	}
	return out
}

// settings is a Config as the rollout file has it by default.
func settings(method string, cs ...RoleCheck) Config {
	return Config{Method: method, Alpha: 0.01, Beta: 0.05, Floor: 0.001, Advance: AdvanceEstimate, Metrics: append(Presets(), Metric{Name: "queue_depth", Kind: Value, Better: Lower}), Checks: cs, PollsPerWindow: 1000}
}

func engine(t testing.TB, cfg Config) *Engine {
	t.Helper()
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// one is a poll of one metric.
func one(n int64, weight int, metric string, s Sample) Poll {
	return Poll{Number: n, Weight: weight, Requests: Requests{Stable: s.Stable.N, Canary: s.Canary.N}, Samples: map[string]Sample{metric: s}}
}

// rates is a sample of a ratio or count.
func rates(ns, xs, nc, xc float64) Sample {
	return Sample{Stable: Counts{N: ns, X: xs}, Canary: Counts{N: nc, X: xc}}
}

// near reports whether two numbers agree to a relative precision; NaN agrees with NaN.
func near(a, b, precision float64) bool {
	if math.IsNaN(a) || math.IsNaN(b) {
		return math.IsNaN(a) && math.IsNaN(b)
	}
	return a == b || math.Abs(a-b) <= precision*math.Max(math.Abs(a), math.Abs(b))
}

func poisson(r *rand.Rand, mean float64) float64 {
	if mean <= 0 {
		return 0
	}
	if mean > 30 { // enough for traffic; events are drawn by binomial
		return math.Max(0, math.Round(mean+math.Sqrt(mean)*r.NormFloat64()))
	}
	limit, p, k := math.Exp(-mean), 1.0, -1
	for p > limit {
		p *= r.Float64()
		k++
	}
	return float64(k)
}

// binomial draws by the waiting times between events, exact and fast for small p.
func binomial(r *rand.Rand, n, p float64) float64 {
	if p > 0.5 {
		return n - binomial(r, n, 1-p)
	}
	if p <= 0 {
		return 0
	}
	log, k, at := math.Log1p(-p), 0.0, 0.0
	for {
		at += math.Floor(math.Log(1-r.Float64())/log) + 1
		if at > n {
			return k
		}
		k++
	}
}

// binomialTail is P(X ≥ k) of n trials at p.
func binomialTail(n, k int, p float64) float64 {
	sum := 0.0
	for i := k; i <= n; i++ {
		a, _ := math.Lgamma(float64(n + 1))
		b, _ := math.Lgamma(float64(i + 1))
		c, _ := math.Lgamma(float64(n - i + 1))
		sum += math.Exp(a - b - c + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
	}
	return sum
}
