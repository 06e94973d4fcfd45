package integration

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.temporal.io/api/enums/v1"

	"github.com/aviary-rollouts/aviary/examples/agent"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

// sendAll sends exactly n turns and waits for their answers.
func (w *world) sendAll(agentName string, n int64) {
	w.t.Helper()
	traffic := &agent.Traffic{URL: w.url(agentName), RPS: 200, Users: 500, Turns: 3, Limit: n}
	traffic.Run(context.Background())
	if r := traffic.Report(); r.Turns != n || r.Failed != 0 {
		w.t.Fatalf("of %d turns %d were sent and %d failed", n, r.Turns, r.Failed)
	}
}

// counted fails the test unless the rollout's stage counted exactly n requests.
func (w *world) counted(s rollout.Status, n int64) {
	w.t.Helper()
	if got := s.Requests.Stable + s.Requests.Canary; got != float64(n) {
		w.t.Errorf("counted %v requests (%+v), want exactly %d", got, s.Requests, n)
	}
}

func TestKilledWorkerLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect()})
	// The lease outlasts the outage, as it does in rollouts of hours: the canary had its share all the time.
	w.start(strings.Replace(long("support-agent", "duration: 8s"), "lease: 5s", "lease: 2m", 1))
	w.watched("support-agent")
	w.sendAll("support-agent", 300)
	w.worker.Kill()
	w.sendAll("support-agent", 200) // while nobody watches
	w.startWorker()
	w.sendAll("support-agent", 100)
	end := w.until("support-agent", "promoted", func(s rollout.Status) bool { return s.Phase == rollout.Promoted })
	w.counted(end, 600)
	if r := w.route("support-agent"); r.Stable != "v42" {
		t.Errorf("the gateway says %+v", r)
	}
}

func TestStoppedWorkerHandsOver(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect()})
	w.start(long("support-agent", "duration: 5s"))
	w.watched("support-agent")
	w.sendAll("support-agent", 200)
	first := w.worker
	w.startWorker()
	if err := first.Stop(); err != nil {
		t.Fatalf("the first worker did not stop cleanly: %v", err)
	}
	w.sendAll("support-agent", 100)
	end := w.until("support-agent", "promoted", func(s rollout.Status) bool { return s.Phase == rollout.Promoted })
	w.counted(end, 300)
	if n := w.events("support-agent")[enums.EVENT_TYPE_ACTIVITY_TASK_TIMED_OUT]; n != 0 {
		t.Errorf("%d activities timed out, want none", n)
	}
	if took := end.Ended.Sub(end.Started); took > 25*time.Second {
		t.Errorf("the rollout took %s: the second worker seems to have waited for a timeout", took)
	}
}

// events counts the rollout's history events by type.
func (w *world) events(agentName string) map[enums.EventType]int {
	w.t.Helper()
	ctx, cancel := w.ready()
	defer cancel()
	out := map[enums.EventType]int{}
	it := w.temporal.GetWorkflowHistory(ctx, workflows.WorkflowID(agentName), "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for it.HasNext() {
		e, err := it.Next()
		w.must(err)
		out[e.GetEventType()]++
	}
	return out
}

func TestTemporalRestartsOnItsFile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect(), file: true})
	w.start(long("support-agent", "duration: 15s"))
	w.watched("support-agent")
	w.sendAll("support-agent", 200)
	w.must(w.devstack.Stop())
	w.sendAll("support-agent", 100) // users do not notice
	w.startDevstack()
	w.sendAll("support-agent", 100)
	end := w.until("support-agent", "promoted", func(s rollout.Status) bool { return s.Phase == rollout.Promoted })
	w.counted(end, 400)
}

func TestLeaseRunsOutWithoutAWorker(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect()})
	w.start(long("support-agent", "duration: 6s"))
	w.watched("support-agent")
	w.sendAll("support-agent", 100)
	w.worker.Kill()
	w.eventually("the lease to run out", func() error {
		if r := w.route("support-agent"); !r.LeaseExpired || r.EffectiveWeight != 0 {
			return fmt.Errorf("the gateway says %+v", r)
		}
		return nil
	})
	for i := range 50 {
		version, err := send(context.Background(), w.url("support-agent"), fmt.Sprintf("after-the-lease-%d", i))
		if err != nil || version != "v41" {
			t.Fatalf("a new conversation went to %q (%v), want v41", version, err)
		}
	}
	w.startWorker()
	w.eventually("the canary to come back", func() error {
		if r := w.route("support-agent"); r.LeaseExpired || r.EffectiveWeight == 0 {
			return fmt.Errorf("the gateway says %+v", r)
		}
		return nil
	})
	w.sendAll("support-agent", 100)
	end := w.until("support-agent", "promoted", func(s rollout.Status) bool { return s.Phase == rollout.Promoted })
	// While nobody renewed the lease, versions had their traffic at different times: nothing of that is compared.
	if n := end.Requests.Stable + end.Requests.Canary; n < 1 || n > 100 {
		t.Errorf("the stage counted %v requests, want some of the last 100 alone", n)
	}
}

func TestSweepRestoresAfterTerminate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect(), sweep: "1s"})
	// A lease that never runs out leaves only Sweep.
	w.start(`
agent: support-agent
stable: v41
canary: v42
traffic: {lease: 0s}
metrics: {interval: 300ms}
canary_stages: [{name: watch, weight: 0.5, duration: 1h}]
`)
	w.until("support-agent", "watching", func(s rollout.Status) bool { return s.Phase == rollout.Observing })
	ctx, cancel := w.ready()
	defer cancel()
	w.must(w.temporal.TerminateWorkflow(ctx, workflows.WorkflowID("support-agent"), "", "somebody in a hurry"))
	w.eventually("Sweep to restore stable", func() error {
		if r := w.route("support-agent"); r.Weight != 0 || r.EffectiveWeight != 0 {
			return fmt.Errorf("the gateway says %+v", r)
		}
		return nil
	})
}
