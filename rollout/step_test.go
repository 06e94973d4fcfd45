package rollout_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	. "github.com/aviary-rollouts/aviary/rollout"
)

var t0 = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

const owner = "canary/support-agent/run-1"

func twoStages() Spec {
	return Spec{
		Agent: "support-agent", Stable: "v41", Canary: "v42",
		Traffic: Traffic{Driver: "router", Target: "default", Lease: Duration(2 * time.Minute), OnRollback: Evict},
		Metrics: Metrics{Interval: Duration(10 * time.Second), NoDataTimeout: Duration(10 * time.Minute), OnNoData: PolicyPause},
		Stages: []Stage{
			{Name: "initial", Weight: 500, Duration: Duration(30 * time.Minute), AutoRollback: true, Approval: ApprovalRequired,
				MaxHold: Duration(24 * time.Hour), OnHold: PolicyPause},
			{Name: "half", Weight: 5000, Duration: Duration(3 * time.Hour), MinRequests: 50, AutoRollback: true,
				MaxHold: Duration(24 * time.Hour), OnHold: PolicyPause},
		},
	}
}

// passed is a slice that meets the stage's gate.
func passed(d time.Duration) *ObserveResult {
	return &ObserveResult{
		Finding: FoundReady, Observed: Duration(d), Requests: Requests{Stable: 1000, Canary: 100},
		Verdict: Met, Gate: Met, Cursor: json.RawMessage(`{"v":1}`),
		Evidence: []Evidence{{Check: "error_rate_increase < 0.1", Metric: "error_rate", Role: "guard", Verdict: Met}},
	}
}

// drive steps s through the events, a minute apart, and returns the last commands.
func drive(s State, now time.Time, events ...Event) (State, []Command, time.Time) {
	var commands []Command
	for _, e := range events {
		now = now.Add(time.Minute)
		s, commands = Step(s, e, now)
	}
	return s, commands, now
}

// in is a rollout that came to a phase in the ordinary way.
func in(t *testing.T, phase Phase) (State, time.Time) {
	t.Helper()
	s, _, now := drive(New(twoStages(), owner, t0), t0, Begin{})
	done := func(observed *ObserveResult) {
		s, _ = Step(s, TaskDone{ID: s.Task.ID, Observed: observed}, now)
	}
	route := map[Phase]func(){
		Validating: func() {},
		Shifting:   func() { done(nil) },
		Observing:  func() { done(nil); done(nil) },
		AwaitingApproval: func() {
			done(nil)
			done(nil)
			now = now.Add(30 * time.Minute)
			done(passed(30 * time.Minute))
		},
		Promoting: func() { done(nil); done(nil); s, _, now = drive(s, now, Asked{SignalPromote, Ask{Full: true}}) },
		Promoted: func() {
			done(nil)
			done(nil)
			s, _, now = drive(s, now, Asked{SignalPromote, Ask{Full: true}})
			done(nil)
		},
		Restoring: func() { done(nil); done(nil); s, _, now = drive(s, now, Asked{Signal: SignalAbort}) },
		RestoreBlocked: func() {
			done(nil)
			done(nil)
			s, _, now = drive(s, now, Asked{Signal: SignalAbort})
			now = s.Wake
			s, _ = Step(s, Tick{}, now)
		},
		RolledBack: func() { done(nil); done(nil); s, _, now = drive(s, now, Broken{"x"}); done(nil) },
		Aborted:    func() { done(nil); done(nil); s, _, now = drive(s, now, Asked{Signal: SignalAbort}); done(nil) },
		Canceled:   func() { done(nil); done(nil); s, _, now = drive(s, now, CancelRequested{}); done(nil) },
		Rejected: func() {
			s, _ = Step(s, TaskFailed{ID: s.Task.ID, Type: ErrInvalidRollout, Reason: "unknown version"}, now)
		},
	}
	route[phase]()
	if s.Phase != phase {
		t.Fatalf("the way to %s leads to %s", phase, s.Phase)
	}
	return s, now
}

// brief says what a step did: the phase it leads to, and the tasks it runs.
func brief(s State, commands []Command) string {
	out := string(s.Phase)
	if s.Pause != nil {
		out += "(paused)"
	}
	for _, c := range commands {
		switch c := c.(type) {
		case Run:
			out += "+" + string(c.Task.Kind)
		case Finish:
			out += "+Finish"
		}
	}
	return out
}

// What every event does in every phase that is not terminal. "-" is: nothing but a decision to ignore it.
const matrix = `
               validating                 shifting                   observing                      awaiting_approval                      promoting                  restoring                  restore_blocked
begin          validating+Validate        shifting+SetWeight         observing+Observe              awaiting_approval+Observe              promoting+Finalize         restoring+Restore          restore_blocked+Restore
abort          restoring+Restore          restoring+Restore          restoring+Restore              restoring+Restore                      restoring+Restore          -                          -
violation      restoring+Restore          restoring+Restore          restoring+Restore              restoring+Restore                      restoring+Restore          -                          -
pause          validating(paused)         shifting(paused)           observing(paused)              awaiting_approval(paused)              -                          -                          -
resume         -                          -                          -                              -                                      -                          -                          -
approve        -                          -                          -                              shifting+SetWeight                     -                          -                          -
promote        -                          -                          shifting+SetWeight             shifting+SetWeight                     -                          -                          -
promote_full   -                          promoting+Finalize         promoting+Finalize             promoting+Finalize                     -                          -                          -
retry          -                          -                          -                              -                                      -                          -                          restore_blocked+Restore
nonsense       -                          -                          -                              -                                      -                          -                          -
cancel         restoring+Restore          restoring+Restore          restoring+Restore              restoring+Restore                      restoring+Restore          -                          -
broken         restoring+Restore          restoring+Restore          restoring+Restore              restoring+Restore                      restoring+Restore          -                          -
tick_early     =                          =                          =                              =                                      =                          =                          =
tick           rejected+Finish            restoring+Restore          observing+Observe              awaiting_approval+Observe              promoting+Finalize         restore_blocked            restore_blocked+Restore
done           shifting+SetWeight         observing+Observe          restoring+Restore              restoring+Restore                      promoted+Finish            aborted+Finish             aborted+Finish
failed         rejected+Finish            restoring+Restore          restoring+Restore              restoring+Restore                      restoring+Restore          restore_blocked            restore_blocked
failed_invalid rejected+Finish            restoring+Restore          restoring+Restore              restoring+Restore                      restoring+Restore          restore_blocked            restore_blocked
failed_lost    rejected+Finish            restoring+Restore          restoring+Restore              restoring+Restore                      restoring+Restore          aborted+Finish             aborted+Finish
stale_done     =                          =                          =                              =                                      =                          =                          =
stale_failed   =                          =                          =                              =                                      =                          =                          =
slice          =                          =                          observing+Observe              awaiting_approval+Observe              =                          =                          =
ready          =                          =                          awaiting_approval+Observe      awaiting_approval+Observe              =                          =                          =
found_bad      =                          =                          restoring+Restore              restoring+Restore                      =                          =                          =
safety         =                          =                          restoring+Restore              restoring+Restore                      =                          =                          =
no_data        =                          =                          observing(paused)+Observe      awaiting_approval(paused)+Observe      =                          =                          =
drift          =                          =                          observing(paused)+Observe      awaiting_approval(paused)+Observe      =                          =                          =
lost           =                          =                          restoring+Restore              restoring+Restore                      =                          =                          =
plane          =                          =                          observing+Observe              awaiting_approval+Observe              =                          =                          =
source         =                          =                          observing+Observe              awaiting_approval+Observe              =                          =                          =
freeze         =                          =                          observing+Observe              awaiting_approval+Observe              =                          =                          =
`

// eventFor makes the event of a row, and says when it happens.
func eventFor(row string, s State, now time.Time) (Event, time.Time) {
	id := s.Task.ID
	now = now.Add(30 * time.Minute)
	found := func(f Finding) (Event, time.Time) {
		if s.Task.Kind != TaskObserve {
			id = s.NextTask + 7 // no Observe is in flight: this can only be a stale one
		}
		r := passed(30 * time.Minute)
		r.Finding, r.Reason = f, "because of "+row
		if f == FoundNothing || f == FoundNoData {
			r.Observed, r.Gate, r.Verdict, r.Requests = Duration(time.Minute), NoData, NoData, Requests{}
		}
		switch f { // each of these keeps even a stage that would pass
		case FoundSource:
			r.SourceDown = "timeout"
		case FoundPlane:
			r.PlaneDown = "connection refused"
		case FoundFreeze:
			r.Frozen = "stable.error_rate > 0.2"
		}
		return TaskDone{ID: id, Observed: r}, now
	}
	switch row {
	case "begin":
		return Begin{}, now
	case "promote_full":
		return Asked{SignalPromote, Ask{By: "ann", Full: true}}, now
	case "cancel":
		return CancelRequested{}, now
	case "broken":
		return Broken{"index out of range"}, now
	case "tick_early":
		return Tick{}, s.Wake.Add(-time.Nanosecond)
	case "tick":
		return Tick{}, s.Wake
	case "done":
		return TaskDone{ID: id}, now
	case "failed":
		return TaskFailed{ID: id, Type: ErrDriver, Reason: "connection refused"}, now
	case "failed_invalid":
		return TaskFailed{ID: id, Type: ErrInvalidRollout, Reason: "no version v42"}, now
	case "failed_lost":
		return TaskFailed{ID: id, Type: ErrOwnershipLost, Reason: "held by another"}, now
	case "stale_done":
		return TaskDone{ID: id - 1, Observed: passed(time.Hour)}, now
	case "stale_failed":
		return TaskFailed{ID: id + 1, Type: ErrOwnershipLost}, now
	case "found_bad":
		return found(FoundViolation)
	case "slice", "ready", "safety", "no_data", "drift", "lost", "plane", "source", "freeze":
		return found(Finding(row))
	}
	return Asked{Signal(row), Ask{By: "ann", Reason: "a reason"}}, now
}

func TestEveryEventInEveryPhase(t *testing.T) {
	t.Parallel()
	lines := strings.Split(strings.Trim(matrix, "\n"), "\n")
	columns := strings.Fields(lines[0])
	for _, line := range lines[1:] {
		cells := strings.Fields(line)
		row := cells[0]
		for i, column := range columns {
			t.Run(row+"/"+column, func(t *testing.T) {
				t.Parallel()
				s, now := in(t, Phase(column))
				e, at := eventFor(row, s, now)
				next, commands := Step(s, e, at)
				switch want := cells[i+1]; want {
				case "=":
					if diff := cmp.Diff(s, next); diff != "" || commands != nil {
						t.Errorf("want nothing to happen, got %v and\n%s", commands, diff)
					}
				case "-":
					last := next.Decisions[len(next.Decisions)-1]
					if last.Kind != DecideIgnore || last.Reason == "" || commands != nil {
						t.Errorf("want it ignored with a reason, got %+v and commands %v", last, commands)
					}
					next.Decisions = s.Decisions
					if diff := cmp.Diff(s, next); diff != "" {
						t.Errorf("an ignored event changed\n%s", diff)
					}
				default:
					if got := brief(next, commands); got != want {
						t.Errorf("got %s, want %s", got, want)
					}
				}
			})
		}
		for _, phase := range Phases() {
			if !phase.Terminal() {
				continue
			}
			t.Run(row+"/"+string(phase), func(t *testing.T) {
				t.Parallel()
				s, now := in(t, phase)
				e, at := eventFor(row, s, now)
				next, commands := Step(s, e, at)
				if diff := cmp.Diff(s, next); diff != "" || commands != nil {
					t.Errorf("a terminal phase moved: %v\n%s", commands, diff)
				}
			})
		}
	}
}

func TestMatrixIsComplete(t *testing.T) {
	t.Parallel()
	rows, columns := map[string]bool{}, strings.Fields(strings.Split(strings.Trim(matrix, "\n"), "\n")[0])
	for _, line := range strings.Split(strings.Trim(matrix, "\n"), "\n")[1:] {
		rows[strings.Fields(line)[0]] = true
	}
	for _, signal := range Signals() {
		if !rows[string(signal)] {
			t.Errorf("no row for signal %s", signal)
		}
	}
	for _, f := range []Finding{FoundNothing, FoundReady, FoundSafety, FoundNoData, FoundSource, FoundFreeze, FoundDrift, FoundLost, FoundPlane} {
		if !rows[string(f)] {
			t.Errorf("no row for finding %s", f)
		}
	}
	for _, phase := range Phases() {
		if !phase.Terminal() && !slices.Contains(columns, string(phase)) {
			t.Errorf("no column for %s", phase)
		}
	}
}

// TestRefusalAgrees: what Refusal says is what Step does.
func TestRefusalAgrees(t *testing.T) {
	t.Parallel()
	for _, phase := range Phases() {
		for _, signal := range append(Signals(), "nonsense") {
			for _, full := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/%t", phase, signal, full), func(t *testing.T) {
					t.Parallel()
					s, now := in(t, phase)
					why := s.Refusal(signal, Ask{Full: full})
					next, commands := Step(s, Asked{signal, Ask{Full: full}}, now)
					moved := commands != nil
					if moved == (why != "") {
						t.Errorf("refusal %q, but the commands are %v", why, commands)
					}
					if !phase.Terminal() && why != "" && !strings.HasSuffix(next.Decisions[len(next.Decisions)-1].Reason, why) {
						t.Errorf("the refusal %q is not in the decisions", why)
					}
				})
			}
		}
	}
}
