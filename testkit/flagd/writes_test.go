package flagd

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/logger"
	"github.com/open-feature/flagd/core/pkg/store"
	"github.com/open-feature/flagd/core/pkg/sync"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	driver "github.com/aviary-rollouts/aviary/activities/traffic/flagd"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router"
)

// TestWhatTheDriverWrites: flagd's own evaluator makes of the driver's file what the driver says, at every step of a rollout.
func TestWhatTheDriverWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flags.json")
	const before = `{"flags": {
		"agent-version": {"state": "ENABLED", "variants": {"stable": "v41"}, "defaultVariant": "stable"},
		"dark.mode": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"}
	}}`
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	d := driver.New(driver.NewFile(path))
	route := rollout.Route{
		Agent: "support", Stable: "v41", Canary: "v42", Owner: "canary/support/0f3c", Object: &rollout.Object{Name: "agent-version"},
	}
	const keys = 20_000
	canaries := map[string]bool{}
	for i, weight := range []rollout.Weight{1, 500, 1500, 5000, 9999, 10000, 0} {
		route.Weight, route.Revision, route.Rollback = weight, int64(i)+1, weight == 0
		if err := d.Apply(t.Context(), route); err != nil {
			t.Fatal(err)
		}
		f := load(t, path)
		got := 0
		for k := range keys {
			key := fmt.Sprintf("conversation-%d", k)
			version := f.version(t, "agent-version", map[string]any{"targetingKey": key})
			want := "v41"
			if router.FlagdBucket(key, route.Owner) < int(weight) {
				want = "v42"
			}
			if version != want {
				t.Fatalf("%s of %s at %s, the router says %s", version, key, weight, want)
			}
			if canaries[key] && version != "v42" && weight > 0 {
				t.Fatalf("%s lost the canary at %s", key, weight)
			}
			if version == "v42" {
				canaries[key] = true
				got++
			}
		}
		share := weight.Fraction()
		if off := math.Abs(float64(got)-keys*share) / math.Sqrt(keys*share*(1-share)+1); off > 5 {
			t.Errorf("%d of %d keys at %s: %.1f standard deviations off", got, keys, weight, off)
		}
		if version := f.version(t, "agent-version", map[string]any{}); version != map[bool]string{true: "v42", false: "v41"}[weight == rollout.FullWeight] {
			t.Errorf("without a key at %s: %s", weight, version)
		}
	}
}

// load is flagd's evaluator of a whole file. It must not be warned of anything.
func load(t *testing.T, path string) flags {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	core, warnings := observer.New(zapcore.WarnLevel)
	f := flags{evaluator.NewJSON(logger.NewLogger(zap.New(core), false), store.NewFlags()), warnings}
	if _, _, err := f.evaluator.SetState(sync.DataSync{FlagData: string(data), Source: "test"}); err != nil {
		t.Fatal(err)
	}
	for _, w := range warnings.All() {
		t.Errorf("flagd warns of the flags: %s", w.Message)
	}
	return f
}
