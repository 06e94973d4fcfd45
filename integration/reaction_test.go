package integration

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/workflows"
)

// BenchmarkReaction measures how long a canary keeps traffic once it must not have any: from the signal, or from the violation
// reaching the metrics, until the gateway itself says that the weight is 0. Run it with -benchtime 50x.
func BenchmarkReaction(b *testing.B) {
	const interval = 500 * time.Millisecond
	causes := map[string]func(*world, string){
		"violation_signal": func(w *world, id string) { w.signal(id, rollout.SignalViolation) },
		"abort_signal":     func(w *world, id string) { w.signal(id, rollout.SignalAbort) },
		"violation_metric": func(w *world, id string) { w.violate(id) },
	}
	for _, name := range []string{"violation_signal", "abort_signal", "violation_metric"} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, worldOptions{behavior: perfect()})
			w.traffic("support-agent", 20)
			file := w.file("rollout.yaml", fmt.Sprintf(`
agent: support-agent
stable: v41
canary: v42
traffic: {lease: 10s}
metrics: {interval: %s}
canary_stages: [{name: watch, weight: 0.5, duration: 1h}]
`, interval))
			var took []time.Duration
			for b.Loop() {
				b.StopTimer()
				w.t = b
				if out, code := w.starter("start", file); code != 0 {
					b.Fatalf("start ended with code %d:\n%s", code, out)
				}
				w.until("support-agent", "watching", func(s rollout.Status) bool { return s.Phase == rollout.Observing })
				w.watched("support-agent")
				b.StartTimer()
				began := time.Now()
				causes[name](w, "support-agent")
				w.weightZero("support-agent")
				took = append(took, time.Since(began))
				b.StopTimer()
				ctx, cancel := w.ready()
				w.must(w.temporal.GetWorkflow(ctx, workflows.WorkflowID("support-agent"), "").Get(ctx, nil))
				cancel()
				b.StartTimer()
			}
			slices.Sort(took)
			at := func(q float64) time.Duration { return took[int(q*float64(len(took)-1)+0.5)] }
			b.ReportMetric(float64(at(0.50).Milliseconds()), "p50-ms")
			b.ReportMetric(float64(at(0.99).Milliseconds()), "p99-ms")
			b.Logf("%s: %d runs, poll interval %s, p50 %s, p99 %s, longest %s", name, len(took), interval,
				at(0.50).Round(time.Millisecond), at(0.99).Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond))
		})
	}
}

func (w *world) signal(agentName string, signal rollout.Signal) {
	ctx, cancel := w.ready()
	defer cancel()
	w.must(w.temporal.SignalWorkflow(ctx, workflows.WorkflowID(agentName), "", string(signal), rollout.Ask{Reason: "benchmark"}))
}

// violate reports a safety violation of the canary, as an agent would.
func (w *world) violate(agentName string) {
	ctx, cancel := w.ready()
	defer cancel()
	_, err := w.admin.Feedback(ctx, api.Feedback{Agent: agentName, Version: "v42", SafetyViolation: "harmful_advice"})
	w.must(err)
}

// weightZero asks the gateway every few milliseconds until no canary has weight.
func (w *world) weightZero(agentName string) {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) {
		r, err := w.admin.Route(context.Background(), agentName)
		if err == nil && r.Weight == 0 && r.EffectiveWeight == 0 {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	w.t.Fatalf("the canary still had weight after %s", patience)
}
