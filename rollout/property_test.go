package rollout_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	. "github.com/aviary-rollouts/aviary/rollout"
)

// always is checked between any two events.
func (w *world) always() {
	if w.s.Phase.Terminal() && w.s.Phase != Promoted && w.s.Moved && !w.lost && w.plane != 0 {
		w.Fatalf("%s, but the canary has %s", w.s.Phase, w.plane)
	}
	if w.s.Phase == Observing {
		if got := w.s.Observed.Std(); got > w.reported || got > w.watched {
			w.Fatalf("observed %s of %s reported and %s watched", got, w.reported, w.watched)
		}
	}
	if w.s.Pause == nil && w.s.Task.Kind == TaskObserve {
		w.checkPauseDelaysNothing()
	}
	w.checkStatus()
}

// checkPauseDelaysNothing: what takes the canary back does so paused just as it does unpaused, and first of all.
func (w *world) checkPauseDelaysNothing() {
	paused := w.s
	paused.Pause = &Pause{By: "ann", Since: w.now}
	paused.Task.Paused = true
	for _, e := range []Event{
		Asked{Signal: SignalAbort}, Asked{Signal: SignalViolation}, CancelRequested{}, Broken{"x"},
		TaskDone{ID: w.s.Task.ID, Observed: &ObserveResult{Finding: FoundSafety}},
		TaskDone{ID: w.s.Task.ID, Observed: &ObserveResult{Finding: FoundViolation}},
		TaskDone{ID: w.s.Task.ID, Observed: &ObserveResult{Finding: FoundLost}},
	} {
		free, freely := Step(w.s, e, w.now)
		held, anyway := Step(paused, e, w.now)
		if free.Phase != held.Phase {
			w.Fatalf("%+v leads to %s, and paused to %s", e, free.Phase, held.Phase)
		}
		if free.Phase != Restoring {
			continue
		}
		for _, commands := range [][]Command{freely, anyway} {
			if r, ok := commands[0].(Run); !ok || r.Task.Kind != TaskRestore {
				w.Fatalf("%+v: something comes before the restore: %+v", e, commands[0])
			}
		}
	}
}

func (w *world) checkStatus() {
	st := w.s.Status()
	if st.Phase != w.s.Phase || st.Weight != w.s.Weight || st.Owner != owner || st.Stages != len(w.s.Spec.Stages) {
		w.Fatalf("status %+v", st)
	}
	if len(w.s.Decisions) > 0 && st.Last == nil {
		w.Fatalf("no last decision in the status")
	}
}

// TestRandomLives drives rollouts through random lives.
func TestRandomLives(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := &world{T: t, now: t0, s: New(anySpec(t), owner, t0)}
		w.step(Begin{})
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			w.act(rapid.IntRange(0, 99).Draw(t, "act"))
			w.always()
		}
		for _, p := range w.past {
			if now := text(t, p.state); now != p.text {
				t.Fatalf("a later step changed a state of before:\n%s", cmp.Diff(p.text, now))
			}
		}
	})
}

// act lets something happen: mostly the ordinary, so that rollouts come far.
func (w *world) act(dice int) {
	switch {
	case dice < 50:
		if w.lastRun.Observe != nil {
			w.wait(w.lastRun.Observe.Slice.Std())
		}
		w.finishTask()
	case dice < 56:
		w.finishTask()
	case dice < 66:
		w.wait(time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(w.T, "wait")))
	case dice < 70:
		w.failTask()
	case dice < 73:
		w.step(Tick{})
	case dice < 75:
		if late := w.s.Wake.Sub(w.now); !w.s.Wake.IsZero() && late > 0 {
			w.wait(late)
		}
		w.step(Tick{})
	case dice < 77:
		w.carry()
	case dice < 79:
		r := w.anyResult()
		w.stale(TaskDone{ID: w.s.Task.ID - 1, Observed: &r})
		w.stale(TaskFailed{ID: w.s.NextTask + 1, Type: ErrOwnershipLost, Reason: "stale"})
	case dice < 82 && len(w.sent) > 0:
		w.apply(rapid.SampledFrom(w.sent).Draw(w.T, "late"))
	case dice < 95:
		w.ask(rapid.SampledFrom([]Signal{SignalPause, SignalPause, SignalResume, SignalResume, SignalApprove, SignalPromote, SignalRetry}).Draw(w.T, "signal"))
	case dice < 97:
		w.ask(rapid.SampledFrom([]Signal{SignalAbort, SignalViolation}).Draw(w.T, "signal"))
	default:
		w.bad = w.bad || !w.s.Phase.Terminal()
		w.step(rapid.SampledFrom([]Event{CancelRequested{}, Broken{"index out of range"}}).Draw(w.T, "event"))
	}
}

func (w *world) stale(e Event) {
	was := text(w, w.s)
	w.step(e)
	if now := text(w, w.s); now != was || w.commands != nil {
		w.Fatalf("a stale end changed\n%s", cmp.Diff(was, now))
	}
}

// carry lets the rollout go on in a new run: its State is written, read and woken.
func (w *world) carry() {
	var carried State
	if err := json.Unmarshal([]byte(text(w, w.s)), &carried); err != nil {
		w.Fatalf("read the carried state: %v", err)
	}
	was := w.s
	w.s = carried
	w.step(Begin{})
	want := map[Phase]TaskKind{
		Validating: TaskValidate, Shifting: TaskSetWeight, Observing: TaskObserve, AwaitingApproval: TaskObserve,
		Promoting: TaskFinalize, Restoring: TaskRestore, RestoreBlocked: TaskRestore,
	}[was.Phase]
	if was.Phase == Validating && was.Valid {
		want = "" // paused
	}
	if w.s.Phase != was.Phase || w.s.Task.Kind != want || w.s.Stage != was.Stage || w.s.Observed != was.Observed {
		w.Fatalf("carried over in %s, it goes on in %s with %q, want %q", was.Phase, w.s.Phase, w.s.Task.Kind, want)
	}
}
