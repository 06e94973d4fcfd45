package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aviary-rollouts/aviary/internal/crowd"
	"github.com/aviary-rollouts/aviary/rollout"
)

// shadowed is a rollout whose canary is judged by copies first.
func shadowed(canary string) string {
	return fmt.Sprintf(`
agent: support-agent
stable: v41
canary: %s
traffic: {lease: 10s}
metrics: {interval: 300ms}
rollback_criteria: {max_safety_violations: 0, max_error_increase: 0.5, max_completion_drop: 0.10, max_latency_increase: null}
canary_stages:
  - {name: shadow, weight: 0, mirror: 1.0, duration: 3s, min_requests: 100, checks: ["task_completion_drop < 0.10"]}
  - {name: half, weight: 0.5, duration: 2s, min_requests: 50, checks: ["task_completion_drop < 0.10"]}
  - {name: all, weight: 1.0}
`, canary)
}

func TestBadCanaryIsTakenBackBeforeAnyUserMeetsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	users := &crowd.Crowd{Conversations: 200, Turns: 5, Talkers: 4, Errors: true, URLs: []string{w.url("support-agent")}}
	report := w.talk(users, func() {
		w.start(shadowed("v43"))
		w.until("support-agent", "mirrored", func(s rollout.Status) bool { return s.Mirror == rollout.FullWeight || s.Phase.Terminal() })
		w.until("support-agent", "rolled back", func(s rollout.Status) bool { return s.Phase == rollout.RolledBack })
	})
	if report.Versions["v43"] > 0 || report.Versions["v41"] == 0 {
		t.Errorf("users were answered by %v, want v41 alone", report.Versions)
	}
	s, err := w.status("support-agent")
	if err != nil || len(s.Evidence) == 0 || s.Requests.Canary == 0 || s.Mirror != 0 {
		t.Errorf("status %+v, %v: want evidence from the copies", s, err)
	}
	if r := w.route("support-agent"); r.Mirror != 0 || r.Stable != "v41" {
		t.Errorf("after the rollback the gateway says %+v", r)
	}
}

func TestGoodCanaryGoesOnFromTheShadow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{})
	w.traffic("support-agent", 200)
	out, code := w.starter("start", w.file("shadow.yaml", shadowed("v42")), "--watch")
	if code != 0 || !strings.Contains(out, "promoted") || !strings.Contains(out, "mirror 100%") {
		t.Fatalf("the good canary ended with code %d:\n%s", code, out)
	}
	if r := w.route("support-agent"); r.Stable != "v42" {
		t.Errorf("after the promotion the gateway says %+v", r)
	}
}

func TestAgentsWithSideEffectsAreNotMirrored(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect(), sideEffects: true})
	out, code := w.starter("start", w.file("shadow.yaml", shadowed("v42")), "--watch")
	if code == 0 || !strings.Contains(out, "side effects") {
		t.Fatalf("a mirror of an agent with side effects ended with code %d:\n%s", code, out)
	}
	if r := w.route("support-agent"); r.Owner != "" {
		t.Errorf("the gateway was given the route %+v", r)
	}
}
