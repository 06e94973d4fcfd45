package rollout_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	. "github.com/aviary-rollouts/aviary/rollout"
)

// observing is a rollout whose first slice has just begun.
func observing(t *testing.T, change func(*Spec)) (State, time.Time) {
	t.Helper()
	spec := twoStages()
	if change != nil {
		change(&spec)
	}
	s := New(spec, owner, t0)
	for _, e := range []Event{Begin{}, TaskDone{ID: 1}, TaskDone{ID: 2}} {
		s, _ = Step(s, e, t0)
	}
	if s.Phase != Observing {
		t.Fatalf("phase %s", s.Phase)
	}
	return s, t0
}

func TestOnlyWatchedTimeCounts(t *testing.T) {
	t.Parallel()
	ann := Ask{By: "ann"}
	type at struct {
		minute int
		event  func(s State) Event
	}
	ask := func(signal Signal) func(State) Event {
		return func(State) Event { return Asked{signal, ann} }
	}
	slice := func(minutes int) func(State) Event {
		return func(s State) Event {
			r := passed(time.Duration(minutes) * time.Minute)
			r.Finding, r.Gate = FoundNothing, Undecided
			return TaskDone{ID: s.Task.ID, Observed: r}
		}
	}
	for name, tc := range map[string]struct {
		events []at
		want   time.Duration
	}{
		"all of it":                      {[]at{{20, slice(20)}}, 20 * time.Minute},
		"a gap in the numbers":           {[]at{{20, slice(12)}}, 12 * time.Minute},
		"more than passed":               {[]at{{20, slice(50)}}, 20 * time.Minute},
		"paused at the end":              {[]at{{5, ask(SignalPause)}, {20, slice(20)}}, 5 * time.Minute},
		"paused in the middle":           {[]at{{5, ask(SignalPause)}, {12, ask(SignalResume)}, {20, slice(20)}}, 13 * time.Minute},
		"paused twice":                   {[]at{{5, ask(SignalPause)}, {10, ask(SignalResume)}, {15, ask(SignalPause)}, {20, slice(20)}}, 10 * time.Minute},
		"paused over a slice's end":      {[]at{{5, ask(SignalPause)}, {20, slice(20)}, {30, slice(10)}}, 5 * time.Minute},
		"a paused slice is begun anew":   {[]at{{5, ask(SignalPause)}, {20, slice(20)}, {25, ask(SignalResume)}, {29, slice(4)}}, 9 * time.Minute},
		"a human takes a pause over":     {[]at{{5, ask(SignalPause)}, {8, ask(SignalPause)}, {20, slice(20)}}, 5 * time.Minute},
		"gaps may lie outside the pause": {[]at{{10, ask(SignalPause)}, {20, slice(10)}}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := observing(t, func(spec *Spec) { spec.Stages[0].Duration = Duration(3 * time.Hour) })
			for _, e := range tc.events {
				s, _ = Step(s, e.event(s), t0.Add(time.Duration(e.minute)*time.Minute))
			}
			if got := s.Observed.Std(); got != tc.want {
				t.Errorf("observed %s, want %s", got, tc.want)
			}
		})
	}
}

func TestAStageBeginsFromNothing(t *testing.T) {
	t.Parallel()
	s, now := observing(t, func(spec *Spec) { spec.Stages[0].Approval = ApprovalNone })
	now = now.Add(30 * time.Minute)
	seen := passed(30 * time.Minute)
	seen.Before = Requests{Stable: 70, Canary: 7}
	s, commands := Step(s, TaskDone{ID: s.Task.ID, Observed: seen}, now)
	if got := brief(s, commands); got != "shifting+SetWeight" {
		t.Fatal(got)
	}
	if s.Requests != (Requests{}) || s.Observed != 0 || s.Verdict != "" || s.Evidence != nil {
		t.Errorf("the second stage begins with %v requests, %s observed, verdict %q", s.Requests, s.Observed, s.Verdict)
	}
	if s.Total.Canary != 107 || s.Cursor == nil {
		t.Errorf("the rollout forgot its %v requests or the cursor %s", s.Total, s.Cursor)
	}
}

func TestApprovalWaitsForTheResume(t *testing.T) {
	t.Parallel()
	s, now := in(t, AwaitingApproval)
	s, commands := Step(s, Asked{SignalPause, Ask{By: "ann"}}, now)
	s, approved := Step(s, Asked{SignalApprove, Ask{By: "bob"}}, now.Add(time.Minute))
	if got := brief(s, append(commands, approved...)); got != "awaiting_approval(paused)" {
		t.Errorf("approved while paused: %s", got)
	}
	s, commands = Step(s, Asked{SignalResume, Ask{By: "ann"}}, now.Add(2*time.Minute))
	if got := brief(s, commands); got != "shifting+SetWeight" {
		t.Errorf("resumed: %s", got)
	}
	if last := s.Decisions[len(s.Decisions)-2]; last.Kind != DecideAdvance || last.By != "bob" {
		t.Errorf("advanced by %+v", last)
	}
}

func TestApprovalNeedsNumbers(t *testing.T) {
	t.Parallel()
	for name, trouble := range map[string]func(*State){
		"source": func(s *State) { s.SourceDown = "timeout" },
		"plane":  func(s *State) { s.PlaneDown = "timeout" },
		"frozen": func(s *State) { s.Frozen = "stable.error_rate > 0.2" },
		"share":  func(s *State) { s.Mismatch = "the canary got 1 %" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, now := in(t, AwaitingApproval)
			trouble(&s)
			if s.Refusal(SignalApprove, Ask{}) == "" {
				t.Error("an approval is not refused")
			}
			s, commands := Step(s, Asked{SignalApprove, Ask{By: "bob"}}, now)
			if got := brief(s, commands); got != "awaiting_approval" {
				t.Errorf("approved: %s", got)
			}
			if s, _ = Step(s, Asked{SignalPromote, Ask{By: "bob"}}, now); s.Phase != Shifting {
				t.Errorf("a promotion is refused too: %s", s.Phase)
			}
		})
	}
}

// TestSettlingTakesNoHold: max_hold is time to decide in. As long as the canary settles there is nothing to decide by.
func TestSettlingTakesNoHold(t *testing.T) {
	t.Parallel()
	s, now := observing(t, func(spec *Spec) { spec.Stages[0].OnHold = PolicyRollback })
	step := func(d time.Duration, change func(*ObserveResult)) []Command {
		now = now.Add(d)
		r := passed(d)
		change(r)
		var commands []Command
		s, commands = Step(s, TaskDone{ID: s.Task.ID, Observed: r}, now)
		return commands
	}
	settling := func(r *ObserveResult) { r.Settling, r.Gate = Duration(time.Hour), Undecided }
	undecided := func(r *ObserveResult) { r.Gate = Undecided }
	held := 0
	for range 10 {
		step(12*time.Hour, settling)
		if s.Phase != Observing || s.Pause != nil {
			t.Fatalf("%s while it settles", s.Phase)
		}
	}
	for _, d := range s.Decisions {
		if d.Kind == DecideHold {
			held++
		}
	}
	if held != 1 {
		t.Errorf("%d decisions to hold, want one", held)
	}
	if step(24*time.Hour, undecided); s.Phase != Observing {
		t.Fatalf("%s an hour before max_hold is over: it settled for an hour after it was last asked", s.Phase)
	}
	if got := brief(s, step(time.Hour, undecided)); got != "restoring+Restore" {
		t.Errorf("got %s, want max_hold to end it a day after it settled", got)
	}
}

func TestHoldUntilMaxHold(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		policy Policy
		change func(*ObserveResult)
		want   string
		reason string
	}{
		"undecided, rolled back":  {PolicyRollback, func(r *ObserveResult) { r.Gate = Undecided }, "restoring+Restore", "does not decide"},
		"undecided, paused":       {PolicyPause, func(r *ObserveResult) { r.Gate = Undecided }, "observing(paused)+Observe", "does not decide"},
		"no data":                 {PolicyPause, func(r *ObserveResult) { r.Gate = NoData }, "observing(paused)+Observe", "no data"},
		"a result without a gate": {PolicyPause, func(r *ObserveResult) { r.Gate = "" }, "observing(paused)+Observe", "does not decide"},
		"no requests":             {PolicyPause, func(r *ObserveResult) { r.Requests.Canary = 0 }, "observing(paused)+Observe", "0 of at least 1"},
		"frozen":                  {PolicyPause, func(r *ObserveResult) { r.Frozen = "outage" }, "observing(paused)+Observe", "outage"},
		"source down":             {PolicyPause, func(r *ObserveResult) { r.SourceDown = "503" }, "observing(paused)+Observe", "source"},
		"plane down":              {PolicyPause, func(r *ObserveResult) { r.PlaneDown = "503" }, "observing(paused)+Observe", "data plane"},
		"settling, as it was":     {PolicyPause, func(r *ObserveResult) { r.Settles = Duration(30 * time.Second) }, "observing(paused)+Observe", "settles for another 30s"},
		"mismatch":                {PolicyPause, func(r *ObserveResult) { r.Mismatch = "1 % at 5 %" }, "observing(paused)+Observe", "in doubt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, now := observing(t, func(spec *Spec) { spec.Stages[0].OnHold = tc.policy })
			var commands []Command
			for _, d := range []time.Duration{30 * time.Minute, 12 * time.Hour, 12 * time.Hour} {
				if s.Pause != nil || s.Phase != Observing {
					t.Fatalf("too early: %s", brief(s, commands))
				}
				now = now.Add(d)
				r := passed(d)
				tc.change(r)
				s, commands = Step(s, TaskDone{ID: s.Task.ID, Observed: r}, now)
			}
			last := s.Decisions[len(s.Decisions)-1]
			if got := brief(s, commands); got != tc.want || !strings.Contains(last.Reason, tc.reason) || !strings.Contains(last.Reason, "held for 24h") {
				t.Errorf("got %s because %q, want %s because of %q", got, last.Reason, tc.want, tc.reason)
			}
			if tc.policy == PolicyPause {
				s, _ = Step(s, Asked{SignalResume, Ask{By: "ann"}}, now)
				r := passed(time.Hour)
				tc.change(r)
				s, _ = Step(s, TaskDone{ID: s.Task.ID, Observed: r}, now.Add(time.Hour))
				if s.Pause != nil {
					t.Errorf("a resume gives no fresh max_hold")
				}
			}
		})
	}
}

func TestAToleratedViolation(t *testing.T) {
	t.Parallel()
	s, now := observing(t, func(spec *Spec) { spec.Stages[0].AutoRollback = false })
	bad := passed(time.Minute)
	bad.Finding, bad.Reason, bad.Verdict, bad.Gate = FoundViolation, "error_rate_increase < 0.1 violated", Violated, Violated
	s, commands := Step(s, TaskDone{ID: s.Task.ID, Observed: bad}, now.Add(time.Minute))
	if got := brief(s, commands); got != "observing(paused)+Observe" || s.Violation != bad.Reason {
		t.Fatalf("%s, violation %q", got, s.Violation)
	}
	if run := commands[len(commands)-1].(Run); !run.Observe.Tolerate || run.Observe.Gate {
		t.Errorf("it goes on with %+v", run.Observe)
	}
	s, _ = Step(s, Asked{SignalPromote, Ask{By: "ann"}}, now.Add(2*time.Minute))
	if s.Stage != 1 || s.Violation != "" {
		t.Errorf("a human let it pass, but it is in stage %d with violation %q", s.Stage, s.Violation)
	}
}

func TestNoDataIsToldOnceWhilePaused(t *testing.T) {
	t.Parallel()
	s, now := observing(t, nil)
	none := &ObserveResult{Finding: FoundNoData, Reason: "no canary requests for 10m", Verdict: NoData, Gate: NoData}
	told := 0
	for range 5 {
		now = now.Add(10 * time.Minute)
		var commands []Command
		s, commands = Step(s, TaskDone{ID: s.Task.ID, Observed: none}, now)
		for _, c := range commands {
			if _, ok := c.(Tell); ok {
				told++
			}
		}
	}
	if told != 1 || s.Pause == nil || s.Pause.By != Aviary {
		t.Errorf("told %d times, pause %+v", told, s.Pause)
	}
}

func TestChangesAreToldOnce(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*ObserveResult)
		kinds  string
	}{
		"source": {func(r *ObserveResult) { r.SourceDown = "timeout" }, "metrics_source metrics_source"},
		"plane":  {func(r *ObserveResult) { r.PlaneDown = "timeout" }, "data_plane data_plane"},
		"freeze": {func(r *ObserveResult) { r.Frozen = "stable.error_rate > 0.2" }, "freeze thaw"},
		"share":  {func(r *ObserveResult) { r.Mismatch = "1 % at 5 %" }, "traffic_share traffic_share"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, now := observing(t, nil)
			var kinds []string
			for i := range 4 {
				now = now.Add(time.Minute)
				r := &ObserveResult{Finding: FoundNothing, Observed: Duration(time.Minute), Gate: Met, Verdict: Met}
				if i < 2 {
					tc.change(r)
				}
				var commands []Command
				s, commands = Step(s, TaskDone{ID: s.Task.ID, Observed: r}, now)
				for _, c := range commands {
					switch c := c.(type) {
					case Tell:
						kinds = append(kinds, string(c.Notice.Decision.Kind))
					case Run:
						if diff := cmp.Diff([]string{r.Frozen, r.SourceDown, r.PlaneDown, r.Mismatch}, []string{c.Observe.Frozen, c.Observe.SourceDown, c.Observe.PlaneDown, c.Observe.Mismatch}); diff != "" {
							t.Errorf("the next slice knows otherwise:\n%s", diff)
						}
					}
				}
			}
			if got := strings.Join(kinds, " "); got != tc.kinds {
				t.Errorf("told %q, want %q", got, tc.kinds)
			}
		})
	}
}

func TestDrift(t *testing.T) {
	t.Parallel()
	s, now := observing(t, nil)
	r := passed(time.Minute)
	r.Finding, r.PutBack = FoundNothing, "weight 0% by nobody"
	s, _ = Step(s, TaskDone{ID: s.Task.ID, Observed: r}, now.Add(time.Minute))
	if last := s.Decisions[len(s.Decisions)-1]; last.Kind != DecideDrift || s.Pause != nil {
		t.Errorf("put back once: %+v, pause %v", last, s.Pause)
	}
	r = passed(time.Minute)
	r.Finding, r.Reason = FoundDrift, "weight 0% by nobody, again"
	s, commands := Step(s, TaskDone{ID: s.Task.ID, Observed: r}, now.Add(2*time.Minute))
	if run := commands[len(commands)-1].(Run); s.Pause == nil || !run.Observe.Drifted {
		t.Errorf("changed again: pause %v, then %+v", s.Pause, run)
	}
	_, commands = Step(s, Asked{SignalResume, Ask{By: "ann"}}, now.Add(3*time.Minute))
	if run := commands[len(commands)-1].(Run); run.Observe.Drifted {
		t.Error("resumed, it still leaves the route alone")
	}
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	s, now := observing(t, nil)
	for i := range 300 {
		now = now.Add(time.Minute)
		r := &ObserveResult{Finding: FoundNothing, Verdict: Met, Gate: Undecided, Evidence: []Evidence{{Check: fmt.Sprint(i)}}}
		r.Frozen = strings.Repeat("x", i%2)
		for j := range 30 {
			r.Series = append(r.Series, Point{At: now.Add(time.Duration(j) * time.Second)})
		}
		before := text(t, s)
		next, _ := Step(s, TaskDone{ID: s.Task.ID, Observed: r}, now)
		if after := text(t, s); after != before {
			t.Fatalf("slice %d changed the state passed in", i)
		}
		s = next
	}
	if len(s.Decisions) != MaxDecisions || len(s.Series) > MaxPoints || len(s.Series) < MaxPoints/2 {
		t.Errorf("%d decisions, %d points", len(s.Decisions), len(s.Series))
	}
	for i := 1; i < len(s.Series); i++ {
		if !s.Series[i].At.After(s.Series[i-1].At) {
			t.Fatalf("point %d is out of order", i)
		}
	}
	if first := s.Series[0].At; first != t0.Add(time.Minute) {
		t.Errorf("the series begins at %s", first)
	}
	if raw, _ := json.Marshal(s); len(raw) > 128<<10 {
		t.Errorf("the state takes %d bytes", len(raw))
	}
}

func TestRestoreIsTriedForEver(t *testing.T) {
	t.Parallel()
	s, now := in(t, Restoring)
	alerts := 0
	for i := range 30 {
		var commands []Command
		s, commands = Step(s, TaskFailed{ID: s.Task.ID, Type: ErrInvalidRollout, Reason: "no such agent"}, now)
		for _, c := range commands {
			if tell, ok := c.(Tell); ok && tell.Notice.Urgency == Alert {
				alerts++
			}
		}
		wait := s.Wake.Sub(now)
		if s.Phase != RestoreBlocked || wait < RestoreRetry || wait > BlockedRetry {
			t.Fatalf("refusal %d: %s, again in %s", i, s.Phase, wait)
		}
		now = s.Wake
		s, commands = Step(s, Tick{}, now)
		if got := brief(s, commands); got != "restore_blocked+Restore" {
			t.Fatal(got)
		}
	}
	if alerts != 1 {
		t.Errorf("%d alerts", alerts)
	}
	s, commands := Step(s, TaskDone{ID: s.Task.ID}, now)
	if got := brief(s, commands); got != "aborted+Finish" || s.Weight != 0 {
		t.Errorf("%s at %s", got, s.Weight)
	}
}

func TestCanceledBeforeAnythingMoved(t *testing.T) {
	t.Parallel()
	s, now := in(t, Validating)
	s, _ = Step(s, CancelRequested{}, now)
	s, commands := Step(s, TaskFailed{ID: s.Task.ID, Type: ErrInvalidRollout, Reason: "no such agent"}, now)
	if got := brief(s, commands); got != "canceled+Finish" {
		t.Errorf("nothing was moved, and the plane knows no such agent: %s", got)
	}
}

// TestAMismatchTakesNothingBack: it holds, whatever the slices say, and a new weight begins without it.
func TestAMismatchTakesNothingBack(t *testing.T) {
	t.Parallel()
	s, now := observing(t, func(spec *Spec) { spec.Stages[0].Approval, spec.Stages[0].OnHold = ApprovalNone, PolicyRollback })
	for range 20 {
		now = now.Add(time.Hour)
		r := passed(time.Hour)
		r.Finding, r.Mismatch = FoundMismatch, "1 % at 5 %"
		s, _ = Step(s, TaskDone{ID: s.Task.ID, Observed: r}, now)
		if s.Phase != Observing || s.Stage != 0 || s.Mismatch == "" || s.Status().Mismatch != s.Mismatch {
			t.Fatalf("%s in stage %d, mismatch %q", s.Phase, s.Stage, s.Mismatch)
		}
	}
	s, commands := Step(s, Asked{SignalPromote, Ask{By: "ann"}}, now)
	if got := brief(s, commands); got != "shifting+SetWeight" || s.Mismatch != "" {
		t.Errorf("promoted by a human: %s, mismatch %q", got, s.Mismatch)
	}
}
