// Package flagd holds the router's flagd-compatible choice against flagd's own evaluator. It is a module of its own, so that
// nobody who imports the router inherits flagd.
package flagd

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/logger"
	"github.com/open-feature/flagd/core/pkg/store"
	"github.com/open-feature/flagd/core/pkg/sync"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
)

// flags are flagd's evaluator with a flag for each rule. Making one writes to a table that all evaluators of the process
// read, so the tests here run one after the other, each with an evaluator of its own.
type flags struct {
	evaluator *evaluator.JSON
	warnings  *observer.ObservedLogs
}

// newFlags is an evaluator of the rules by flag key. The default variant is one that no rule may choose.
func newFlags(t *testing.T, rules map[string]json.RawMessage) flags {
	t.Helper()
	definitions := map[string]any{}
	for key, rule := range rules {
		definitions[key] = map[string]any{
			"state": "ENABLED", "defaultVariant": "neither", "targeting": rule,
			"variants": map[string]string{router.FlagdCanary: "v42", router.FlagdStable: "v41", "neither": "v0"},
		}
	}
	data, err := json.Marshal(map[string]any{"flags": definitions})
	if err != nil {
		t.Fatal(err)
	}
	core, warnings := observer.New(zapcore.WarnLevel)
	f := flags{evaluator.NewJSON(logger.NewLogger(zap.New(core), false), store.NewFlags()), warnings}
	if _, _, err := f.evaluator.SetState(sync.DataSync{FlagData: string(data), Source: "test"}); err != nil {
		t.Fatal(err)
	}
	// A rule that breaks flagd's schema is only warned of.
	for _, w := range warnings.All() {
		t.Errorf("flagd warns of the flags: %s", w.Message)
	}
	return f
}

// version is what flagd chooses for a flag in a context.
func (f flags) version(t *testing.T, flag string, evaluation map[string]any) string {
	t.Helper()
	version, variant, _, _, err := f.evaluator.ResolveStringValue(context.Background(), "", flag, evaluation)
	if err != nil {
		t.Fatalf("flagd on %q: variant %q, %v", evaluation, variant, err)
	}
	return version
}

// edgeKeys hash to the largest signed value and its negative, of which flagd makes all of 100 percent.
var edgeKeys = []string{"edge-2ambh", "edge-e7u743"}

const agent = "support-agent"

// newRouter is a router whose agent is divided as flagd does, with the canary at weight.
func newRouter(t *testing.T, owner string, weight int) *router.Router {
	t.Helper()
	r, err := router.New(router.Options{Agents: map[string]router.AgentOptions{agent: {
		Stable: "v41", Hash: router.HashFlagd,
		Versions: map[string]api.Version{"v41": {URL: "http://127.0.0.1:1"}, "v42": {URL: "http://127.0.0.1:2"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.SetRoute(agent, api.Route{Stable: "v41", Canary: "v42", Weight: weight, Owner: owner, Revision: 1}); err != nil {
		t.Fatal(err)
	}
	return r
}

func targetingOf(t *testing.T, owner string, weight int) json.RawMessage {
	t.Helper()
	targeting, err := router.FlagdTargeting(owner, weight)
	if err != nil {
		t.Fatal(err)
	}
	return targeting
}

// uuids makes keys as clients do, the same ones every time.
func uuids(seed uint64) func(int) string {
	r := rand.New(rand.NewPCG(seed, 0))
	return func(int) string {
		a, b := r.Uint64(), r.Uint64()
		return fmt.Sprintf("%08x-%04x-4%03x-%04x-%012x", a>>32, a>>16&0xffff, a&0xfff, b>>48&0x3fff|0x8000, b&0xffffffffffff)
	}
}

func TestGatewayAndFlagdAgree(t *testing.T) {
	const keysPerShape = 30_000 // of four shapes, at each weight
	weights := []int{1, 500, 3333, 5000, 9999, 10000}
	rules := map[string]json.RawMessage{}
	for _, weight := range weights {
		rules[fmt.Sprint(weight)] = targetingOf(t, fmt.Sprintf("canary/support-agent/run%d", weight), weight)
	}
	f := newFlags(t, rules)
	for _, weight := range weights {
		t.Run(fmt.Sprint(weight), func(t *testing.T) {
			t.Parallel()
			r := newRouter(t, fmt.Sprintf("canary/support-agent/run%d", weight), weight)
			canary, shapes := 0, map[string]func(int) string{
				"user-N":   func(i int) string { return fmt.Sprintf("user-%d", i) },
				"integers": func(i int) string { return fmt.Sprint(i) },
				"e-mail":   func(i int) string { return fmt.Sprintf("first.last%d@example.com", i) },
				"uuid":     uuids(uint64(weight)),
			}
			for shape, key := range shapes {
				for i := range keysPerShape {
					k := key(i)
					want := f.version(t, fmt.Sprint(weight), map[string]any{"targetingKey": k})
					got, err := r.Decide(agent, router.Request{Key: k})
					if err != nil || got.Version != want {
						t.Fatalf("%s %q: the gateway chooses %s in bucket %d (%v), flagd %s", shape, k, got.Version, got.Bucket, err, want)
					}
					if got.Canary {
						canary++
					}
				}
			}
			const n = keysPerShape * 4
			p := float64(weight) / api.FullWeight
			if sigma := math.Sqrt(n * p * (1 - p)); math.Abs(float64(canary)-n*p) > 5*sigma+1 {
				t.Errorf("%d of %d keys on the canary, want %.0f ± %.0f", canary, n, n*p, 5*sigma)
			}
		})
	}
}

func TestGatewayAndFlagdAgreeOnStrangeKeys(t *testing.T) {
	keys := []string{
		" ", "\t", "a ", " a", "  a\r\n", "\u00a0a\u00a0", "null", `"`, `""`, `{"var":"x"}`, "0", "1e3", "-1", "true", "日本語", "é", "e\u0301",
		"\x00", "\u2028", "<script>&", `\`, `\u0041`, string(make([]byte, 3000)),
	}
	owners := []string{"canary/support-agent/run1", " spaces around ", `quotes " and \ in <it>`, "日本", "x"}
	const step = 500
	rules := map[string]json.RawMessage{}
	for _, owner := range owners {
		for weight := 0; weight <= api.FullWeight; weight += step {
			rules[fmt.Sprint(owner, weight)] = targetingOf(t, owner, weight)
		}
	}
	f := newFlags(t, rules)
	for _, owner := range owners {
		for weight := 0; weight <= api.FullWeight; weight += step {
			r := newRouter(t, owner, weight)
			for _, key := range keys {
				want := f.version(t, fmt.Sprint(owner, weight), map[string]any{"targetingKey": key})
				if got, err := r.Decide(agent, router.Request{Key: key}); err != nil || got.Version != want {
					t.Errorf("owner %q weight %d key %.40q: the gateway chooses %s (%v), flagd %s", owner, weight, key, got.Version, err, want)
				}
			}
		}
	}
}

// The bucket is exact to the basis point: a weight that equals it leaves the key on stable, one more takes it to the canary.
func TestBucketIsWhereFlagdTurns(t *testing.T) {
	const owner, keys = "canary/support-agent/edge", 500
	rules := map[string]json.RawMessage{}
	buckets := map[string]int{}
	for i := range keys {
		key := fmt.Sprintf("user-%d", i)
		bucket := router.FlagdBucket(key, owner)
		buckets[key] = bucket
		for weight := bucket; weight <= bucket+1; weight++ {
			rules[fmt.Sprint(weight)] = targetingOf(t, owner, weight)
		}
	}
	f := newFlags(t, rules)
	for key, bucket := range buckets {
		for weight, want := range map[int]string{bucket: "v41", bucket + 1: "v42"} {
			if got := f.version(t, fmt.Sprint(weight), map[string]any{"targetingKey": key}); got != want {
				t.Errorf("%s in bucket %d at weight %d: flagd chooses %s, want %s", key, bucket, weight, got, want)
			}
		}
	}
}

// Flagd gives three hashes of 2^32 to no variant, which would be an error to the caller. The rule names one for them.
func TestHashesThatFlagdGivesToNobody(t *testing.T) {
	const owner = ""
	for weight, want := range map[int]string{0: "v41", 9999: "v41", 10000: "v42"} {
		f := newFlags(t, map[string]json.RawMessage{"flag": targetingOf(t, owner, weight)})
		for _, key := range edgeKeys {
			if got := f.version(t, "flag", map[string]any{"targetingKey": key}); got != want {
				t.Errorf("weight %d key %q: flagd chooses %s, want %s", weight, key, got, want)
			}
			if bucket := router.FlagdBucket(key, owner); bucket != router.Buckets-1 {
				t.Errorf("key %q: bucket %d, want the last one", key, bucket)
			}
		}
	}
}

func TestWithoutATargetingKey(t *testing.T) {
	for weight, want := range map[int]string{0: "v41", 5000: "v41", 9999: "v41", 10000: "v42"} {
		f := newFlags(t, map[string]json.RawMessage{"flag": targetingOf(t, "canary/support-agent/run1", weight)})
		for _, evaluation := range []map[string]any{nil, {}, {"targetingKey": ""}, {"user": "x"}} {
			if got := f.version(t, "flag", evaluation); got != want {
				t.Errorf("weight %d, context %v: flagd chooses %s, want %s", weight, evaluation, got, want)
			}
		}
	}
}
