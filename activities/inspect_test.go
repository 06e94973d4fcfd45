package activities_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	. "github.com/aviary-rollouts/aviary/activities"
	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

func inspect(t *testing.T, w *world, config Config, s rollout.Spec) []rollout.Remark {
	t.Helper()
	var got []rollout.Remark
	if err := (&attempt{name: "Inspect"}).run(t, config, s, &got); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.applied) > 0 {
		t.Errorf("inspecting changed the route: %+v", w.applied)
	}
	return got
}

// worst is the remarks of a level, as text.
func worst(remarks []rollout.Remark, level rollout.RemarkLevel) string {
	var out []string
	for _, r := range remarks {
		if r.Level == level {
			out = append(out, r.Path+": "+r.Text)
		}
	}
	return strings.Join(out, "\n")
}

// TestInspect: everything that would keep a rollout from working is found before it starts, each beside the others.
func TestInspect(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change            func(*world, *rollout.Spec)
		errors, warnings  []string
		stillSaysThatItIs string // among what is ok
	}{
		"all well": {func(*world, *rollout.Spec) {}, nil, nil, "requests to support-agent v41"},
		"no such targets": {func(_ *world, s *rollout.Spec) {
			s.Traffic.Target, s.Metrics.Target = "elsewhere", "nowhere"
		}, []string{"traffic.target: ", "metrics.target: "}, nil, ""},
		"a version that is not there": {func(_ *world, s *rollout.Spec) { s.Canary = "v99" }, []string{"does not know version v99"}, nil, "requests to"},
		"another stable":              {func(_ *world, s *rollout.Spec) { s.Stable, s.Canary = "v42", "v41" }, []string{"is v41 on the data plane"}, nil, ""},
		"a data plane that is down": {func(w *world, _ *rollout.Spec) {
			w.plane = func(time.Duration) error { return errors.New("connection refused") }
		}, []string{"connection refused"}, nil, "requests to"},
		"a source that is down": {func(w *world, _ *rollout.Spec) {
			w.source = func(time.Duration) error { return errors.New("no route to host") }
		}, []string{"no route to host"}, nil, "answers: support-agent has all traffic on v41"},
		"no traffic":        {func(w *world, _ *rollout.Spec) { w.stable.rps = 0 }, nil, []string{"does it have traffic"}, ""},
		"a weight too fine": {func(_ *world, s *rollout.Spec) { s.Stages[0].Weight = 550 + 1 }, []string{"multiples of"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			w.owner, w.revision, w.weight, w.canaries = "", 0, 0, ""
			s := spec()
			c.change(w, &s)
			got := inspect(t, w, w.config(), s)
			bad, doubtful, fine := worst(got, rollout.RemarkError), worst(got, rollout.RemarkWarning), worst(got, rollout.RemarkOK)
			for _, want := range c.errors {
				if !strings.Contains(bad, want) {
					t.Errorf("errors:\n%s\nwant %q among them", bad, want)
				}
			}
			if len(c.errors) == 0 && bad != "" {
				t.Errorf("errors:\n%s\nwant none", bad)
			}
			for _, want := range c.warnings {
				if !strings.Contains(doubtful, want) {
					t.Errorf("warnings:\n%s\nwant %q among them", doubtful, want)
				}
			}
			if !strings.Contains(fine, c.stillSaysThatItIs) {
				t.Errorf("ok:\n%s\nwant %q among it", fine, c.stillSaysThatItIs)
			}
		})
	}
}

// inspected is a data plane that can look deeper.
type inspected struct{ traffic.Driver }

func (inspected) Inspect(_ context.Context, route rollout.Route) []rollout.Remark {
	return []rollout.Remark{{Level: rollout.RemarkError, Path: "traffic.object.rule", Text: "no rule in " + route.Object.Name}}
}

func TestInspectAsksTheDriver(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.owner, w.revision, w.weight, w.canaries = "", 0, 0, ""
	config := w.config()
	s := spec()
	s.Traffic.Object = &rollout.Object{Name: "ai-agent"}
	config.Drivers = map[string]Targets[traffic.Driver]{s.Traffic.Driver: {s.Traffic.Target: inspected{w}}}
	got := inspect(t, w, config, s)
	if bad := worst(got, rollout.RemarkError); !strings.Contains(bad, "traffic.object.rule: no rule in ai-agent") {
		t.Errorf("errors:\n%s\nwant what the driver found", bad)
	}
}
