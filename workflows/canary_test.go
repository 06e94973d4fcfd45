package workflows

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/temporal"

	"github.com/aviary-rollouts/aviary/rollout"
)

func TestPromotes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	began := w.env.Now()
	w.run(spec())
	got := w.result()
	want := []string{"SetWeight 5%", "Observe 5%", "SetWeight 25%", "Observe 25%", "SetWeight 100%", "Finalize 0%"}
	if d := cmp.Diff(want, w.calls); d != "" {
		t.Errorf("calls (-want +got):\n%s", d)
	}
	if got.Phase != rollout.Promoted || got.Weight != rollout.FullWeight || got.Ended.Sub(began) < time.Hour {
		t.Errorf("status %+v", got)
	}
	final := w.routes[len(w.routes)-1]
	if !final.Promoted || final.Stable != "v42" || final.Canary != "" || final.Owner != "canary/support-agent/"+w.owner[len("canary/support-agent/"):] {
		t.Errorf("final route %+v", final)
	}
	for i := 1; i < len(w.routes); i++ {
		if w.routes[i].Revision <= w.routes[i-1].Revision {
			t.Errorf("revision %d after %d", w.routes[i].Revision, w.routes[i-1].Revision)
		}
	}
}

func TestViolationInEachStage(t *testing.T) {
	t.Parallel()
	bake := spec()
	bake.Stages[2].Duration = rollout.Duration(time.Hour)
	for stage, name := range []string{"initial", "wider", "full"} {
		for _, finding := range []rollout.Finding{rollout.FoundViolation, rollout.FoundSafety, rollout.FoundLost} {
			t.Run(name+"/"+string(finding), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				w.observe = findingAt(stage, finding)
				w.run(bake)
				got := w.result()
				if got.Phase != rollout.RolledBack || got.Weight != 0 || got.Reason != "seen "+string(finding) || got.StageIndex != stage {
					t.Errorf("status %+v", got)
				}
				restored(t, w)
			})
		}
	}
}

// restored asserts that the last thing done to the traffic was to take it back.
func restored(t *testing.T, w *world) {
	t.Helper()
	if n := len(w.calls); n == 0 || w.calls[n-1] != "Restore 0%" || w.weight != 0 {
		t.Errorf("not restored: weight %s, calls %q", w.weight, w.calls)
	}
	if r := w.routes[len(w.routes)-1]; !r.Rollback || r.Stable != "v41" || r.Canary != "v42" {
		t.Errorf("last route %+v", r)
	}
}

func TestSafetyViolationWhilePaused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signal(10*time.Minute, rollout.SignalPause, map[string]any{"by": "ada", "reason": "lunch"})
	found := w.env.Now().Add(5 * time.Hour)
	w.observe = func(now time.Time, r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
		if left := found.Sub(now); left <= r.Slice.Std() && now.After(found.Add(-5*time.Hour+10*time.Minute)) {
			return sees(r, rollout.FoundSafety, left), left
		}
		return healthy(now, r)
	}
	w.at(4*time.Hour, func() {
		if s := w.status(); s.Phase != rollout.Observing || s.Paused == nil || s.Paused.By != "ada" || s.Weight != 500 {
			t.Errorf("after four hours %+v", s)
		}
	})
	w.run(spec())
	if got := w.result(); got.Phase != rollout.RolledBack || !got.Ended.Equal(found) {
		t.Errorf("ended %s as %s, want rolled back at %s", got.Ended, got.Phase, found)
	}
	restored(t, w)
}

func TestViolationWithoutAutoRollbackWaitsForAHuman(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := spec()
	s.Stages[0].AutoRollback = false
	w.observe = findingAt(0, rollout.FoundViolation)
	w.at(3*time.Hour, func() {
		if s := w.status(); s.Phase != rollout.Observing || s.Paused == nil || s.Paused.By != rollout.Aviary || s.Violation == "" {
			t.Errorf("status %+v", s)
		}
	})
	w.signal(4*time.Hour, rollout.SignalAbort, "seen enough")
	w.run(s)
	if got := w.result(); got.Phase != rollout.Aborted {
		t.Errorf("status %+v", got)
	}
	restored(t, w)
}

func TestInconclusiveHoldsUpToMaxHold(t *testing.T) {
	t.Parallel()
	for policy, want := range map[rollout.Policy]rollout.Phase{rollout.PolicyRollback: rollout.RolledBack, rollout.PolicyPause: rollout.Aborted} {
		t.Run(string(policy), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := spec()
			s.Stages[1].OnHold = policy
			w.observe = func(now time.Time, r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
				result, d := healthy(now, r)
				if r.Stage == 1 {
					result.Finding, result.Gate = rollout.FoundNothing, rollout.Undecided
				}
				return result, d
			}
			began := w.env.Now()
			w.at(2*time.Hour, func() {
				if s := w.status(); s.Hold.IsZero() || s.Paused != nil || s.Weight != 2500 {
					t.Errorf("while held %+v", s)
				}
			})
			w.at(4*time.Hour, func() {
				if s := w.status(); policy == rollout.PolicyPause && (s.Paused == nil || s.Weight != 2500) {
					t.Errorf("past max_hold %+v", s)
				}
			})
			w.signal(5*time.Hour, rollout.SignalAbort, nil)
			w.run(s)
			got := w.result()
			if took := got.Ended.Sub(began); got.Phase != want || took < 3*time.Hour {
				t.Errorf("%s after %s", got.Phase, took)
			}
			restored(t, w)
		})
	}
}

func TestApproval(t *testing.T) {
	t.Parallel()
	for name, send := range map[string]func(*world){
		"signal": func(w *world) { w.signal(5*time.Hour, rollout.SignalApprove, map[string]any{"by": "ada"}) },
		"update": func(w *world) {
			w.at(5*time.Hour, func() { w.update(rollout.SignalApprove, rollout.Ask{By: "ada"}, func(rollout.Status, string) {}) })
		},
		"signal too soon": func(w *world) {
			w.signal(time.Minute, rollout.SignalApprove, nil)
			w.signal(5*time.Hour, rollout.SignalApprove, "ok")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			s := spec()
			s.Stages[0].Approval = rollout.ApprovalRequired
			began := w.env.Now()
			w.at(4*time.Hour, func() {
				if s := w.status(); s.Phase != rollout.AwaitingApproval || s.Weight != 500 {
					t.Errorf("before approval %+v", s)
				}
			})
			send(w)
			w.run(s)
			if got := w.result(); got.Phase != rollout.Promoted || got.Ended.Sub(began) < 5*time.Hour+30*time.Minute {
				t.Errorf("%s after %s", got.Phase, got.Ended.Sub(began))
			}
		})
	}
}

// stuck makes a rollout stay in a phase from its first minutes on.
func stuck(w *world, phase rollout.Phase) rollout.Spec {
	s := spec()
	switch phase {
	case rollout.Validating:
		w.take[rollout.TaskValidate] = always(never, nil)
	case rollout.Shifting:
		w.take[rollout.TaskSetWeight] = always(never, nil)
	case rollout.AwaitingApproval:
		s.Stages[0].Duration = rollout.Duration(10 * time.Second)
		s.Stages[0].Approval = rollout.ApprovalRequired
	case rollout.Promoting:
		s.Stages = s.Stages[2:]
		w.take[rollout.TaskFinalize] = always(never, nil)
	case rollout.Restoring, rollout.RestoreBlocked:
		w.signal(10*time.Second, rollout.SignalViolation, nil)
		w.take[rollout.TaskRestore] = func(try int) (time.Duration, error) {
			switch {
			case try > 1:
				return 0, nil
			case phase == rollout.Restoring:
				return 90 * time.Second, nil
			}
			return 0, broken(rollout.ErrDriver)
		}
	}
	return s
}

func TestAbortAndCancelInEveryPhase(t *testing.T) {
	t.Parallel()
	phases := []rollout.Phase{rollout.Validating, rollout.Shifting, rollout.Observing, rollout.AwaitingApproval, rollout.Promoting,
		rollout.Restoring, rollout.RestoreBlocked}
	for _, phase := range phases {
		for name, want := range map[string]rollout.Phase{"abort": rollout.Aborted, "cancel": rollout.Canceled, "violation": rollout.RolledBack} {
			for _, paused := range []bool{false, true} {
				t.Run(string(phase)+"/"+name+map[bool]string{true: "/paused"}[paused], func(t *testing.T) {
					t.Parallel()
					interrupt(t, phase, name, want, paused)
				})
			}
		}
	}
}

func interrupt(t *testing.T, phase rollout.Phase, how string, want rollout.Phase, paused bool) {
	w := newWorld(t)
	s := stuck(w, phase)
	if paused {
		w.signal(20*time.Second, rollout.SignalPause, nil)
	}
	at := w.env.Now().Add(40 * time.Second)
	w.at(40*time.Second, func() {
		if got := w.status().Phase; got != phase {
			t.Errorf("in phase %s, want %s", got, phase)
		}
		if how == "cancel" {
			w.env.CancelWorkflow()
			return
		}
		w.env.SignalWorkflow(how, nil)
	})
	w.run(s)
	restoring := phase == rollout.Restoring || phase == rollout.RestoreBlocked
	if restoring {
		want = rollout.RolledBack // the first reason names the outcome
	}
	var got rollout.Status
	if want == rollout.Canceled {
		var canceled *temporal.CanceledError
		if err := w.env.GetWorkflowError(); !errors.As(err, &canceled) {
			t.Fatalf("ended with %v, want a canceled workflow", err)
		}
		got = w.status()
	} else {
		got = w.result()
	}
	if got.Phase != want || (!restoring && !got.Ended.Equal(at)) {
		t.Errorf("%s at %s, want %s at %s", got.Phase, got.Ended, want, at)
	}
	restored(t, w)
}

func TestCancelIsTakenOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.take[rollout.TaskRestore] = always(time.Minute, nil)
	w.at(10*time.Minute, w.env.CancelWorkflow)
	w.at(10*time.Minute+10*time.Second, w.env.CancelWorkflow)
	w.run(spec())
	n := 0
	for _, d := range w.decisions() {
		if d.Kind == rollout.DecideRollback || d.Kind == rollout.DecideIgnore {
			n++
		}
	}
	if n != 1 || w.tries["Restore"] != 1 {
		t.Errorf("%d decisions about a cancel and %d restores, want 1 and 1", n, w.tries["Restore"])
	}
}

func TestSetWeightFailing(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(int) (time.Duration, error){
		"refused":       always(0, broken(rollout.ErrDriver)),
		"lost":          always(0, temporal.NewApplicationError("held by another", rollout.ErrOwnershipLost)),
		"again & again": always(0, temporal.NewApplicationError("no route to host", rollout.ErrDriver)),
		"no answer":     always(never, nil),
		"second stage": func(try int) (time.Duration, error) {
			if try == 1 {
				return 0, nil
			}
			return 0, broken(rollout.ErrDriver)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.take[rollout.TaskSetWeight] = f
			w.run(spec())
			if got := w.result(); got.Phase != rollout.RolledBack || got.Weight != 0 {
				t.Errorf("status %+v", got)
			}
			restored(t, w)
		})
	}
}

func TestRefusedByValidate(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]func(int) (time.Duration, error){
		"refused":   always(0, temporal.NewApplicationError("unknown target", rollout.ErrInvalidRollout)),
		"no answer": always(never, nil),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.take[rollout.TaskValidate] = f
			w.run(spec())
			var refused *temporal.ApplicationError
			if err := w.env.GetWorkflowError(); !errors.As(err, &refused) || refused.Type() != rollout.ErrInvalidRollout || !refused.NonRetryable() {
				t.Errorf("ended with %v", err)
			}
			if len(w.calls) > 0 {
				t.Errorf("traffic was touched: %q", w.calls)
			}
			if got := w.status().Phase; got != rollout.Rejected {
				t.Errorf("phase %s", got)
			}
		})
	}
}

func TestUnreadableAnswerTakesTheCanaryBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env.OnActivity("Observe", anything, anything).Return(func(ctx ctxArg, r rollout.ObserveRequest) (rollout.ObserveResult, error) {
		return rollout.ObserveResult{}, w.after(ctx, time.Minute, "what?", func() {})
	})
	w.run(spec())
	if got := w.result(); got.Phase != rollout.RolledBack || got.Weight != 0 {
		t.Errorf("status %+v", got)
	}
	restored(t, w)
}

func TestStuckObserveIsStartedAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := true
	w.observe = func(now time.Time, r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
		if first {
			first = false // an operator paused the activity: no timeout of it runs
			return rollout.ObserveResult{}, never
		}
		return healthy(now, r)
	}
	w.run(spec())
	if got := w.result(); got.Phase != rollout.Promoted || w.tries["Observe"] != 3 {
		t.Errorf("%s after %d slices", got.Phase, w.tries["Observe"])
	}
}
