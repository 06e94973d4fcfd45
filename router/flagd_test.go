package router

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/router/api"
)

// flagdOptions are the usual ones with an agent that is divided as flagd does.
func flagdOptions(t testing.TB) Options {
	o := testOptions(t, newFakeClock())
	a := o.Agents[agent]
	a.Hash = HashFlagd
	o.Agents = map[string]AgentOptions{agent: a}
	return o
}

func TestAgentDividedAsFlagdDoes(t *testing.T) {
	t.Parallel()
	r, err := New(flagdOptions(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, key := range []string{"user-1", "user-2", "a much longer key than the others, for once"} {
		weight := i * 5000
		route := canaryRoute(weight, int64(i))
		mustSet(t, r, route)
		want := FlagdBucket(key, route.Owner)
		if d := mustDecide(t, r, Request{Key: key}); d.Bucket != want || d.Canary != (want < weight) || d.Reason != ByWeight {
			t.Errorf("%s at weight %d: %+v, want bucket %d", key, weight, d, want)
		}
	}
}

func TestFlagdBucketIsFixedForEver(t *testing.T) {
	t.Parallel()
	// What flagd's own evaluator was seen to do: testkit/flagd asks it.
	for _, tt := range []struct {
		key, salt string
		want      int
	}{
		{"user-1", "canary/support-agent/run1", 8233}, {"user-2", "canary/support-agent/run1", 6600}, {"user-1", "canary/support-agent/run2", 9240},
		{"", "", 0}, {"日本語", "x", 5104}, {" spaces ", " ", 8672}, {strings.Repeat("long ", 500), "salt", 8044},
	} {
		if got := FlagdBucket(tt.key, tt.salt); got != tt.want {
			t.Errorf("FlagdBucket(%.20q, %q) = %d, want %d", tt.key, tt.salt, got, tt.want)
		}
	}
	for hash, want := range map[int32]int{
		0: 0, 1: 0, -1: 0, math.MaxInt32: Buckets - 1, math.MinInt32: Buckets - 1, -math.MaxInt32: Buckets - 1, math.MaxInt32 / 2: 4999, math.MaxInt32/2 + 1: 5000,
	} {
		if got := flagdBucket(hash); got != want {
			t.Errorf("hash %d falls into bucket %d, want %d", hash, got, want)
		}
	}
}

func TestHashSettings(t *testing.T) {
	t.Parallel()
	o := flagdOptions(t)
	a := o.Agents[agent]
	a.Hash = "md5"
	if _, err := New(Options{Agents: map[string]AgentOptions{agent: a}}); err == nil || !strings.Contains(err.Error(), `hash "md5": want aviary or flagd`) {
		t.Errorf("unknown hash: %v", err)
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	mustSet(t, r, canaryRoute(500, 1))
	if err := r.Reconfigure(map[string]AgentOptions{agent: a}); err == nil || !strings.Contains(err.Error(), `hash "md5"`) {
		t.Errorf("reconfigured with an unknown hash: %v", err)
	}
	a.Hash = HashAviary
	if err := r.Reconfigure(map[string]AgentOptions{agent: a}); err == nil || !strings.Contains(err.Error(), "is live") {
		t.Errorf("another hash during a rollout: %v", err)
	}
	mustSet(t, r, rollbackRoute(2, api.Evict))
	if err := r.Reconfigure(map[string]AgentOptions{agent: a}); err != nil {
		t.Errorf("another hash after the rollout: %v", err)
	}
	if d := mustDecide(t, r, Request{Key: "user-1"}); d.Bucket != Bucket("user-1", canaryRoute(0, 0).Owner) {
		t.Errorf("after the change: %+v", d)
	}
}

func TestFlagdTargeting(t *testing.T) {
	t.Parallel()
	for weight, rest := range map[int]string{500: FlagdStable, api.FullWeight: FlagdCanary} {
		raw, err := FlagdTargeting(`a"b`, weight)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatal(err)
		}
		key := map[string]any{"var": "targetingKey"}
		share := map[string]any{"fractional": []any{
			map[string]any{"cat": []any{`a"b`, key}},
			[]any{"canary", float64(weight)}, []any{"stable", float64(api.FullWeight - weight)},
		}}
		want := map[string]any{"if": []any{key, map[string]any{"or": []any{share, rest}}, rest}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("weight %d (-want +got):\n%s", weight, diff)
		}
	}
	for _, weight := range []int{-1, api.FullWeight + 1} {
		if raw, err := FlagdTargeting("a", weight); err == nil {
			t.Errorf("weight %d: %s, want an error", weight, raw)
		}
	}
}
