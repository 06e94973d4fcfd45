package rollout_test

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	. "github.com/aviary-rollouts/aviary/rollout"
)

// anySpec draws a rollout of one to four stages of any policy.
func anySpec(t *rapid.T) Spec {
	s := twoStages()
	s.Metrics.OnNoData = rapid.SampledFrom([]Policy{PolicyPause, PolicyRollback}).Draw(t, "on_no_data")
	n := rapid.IntRange(1, 4).Draw(t, "stages")
	s.Stages = nil
	weight := Weight(0)
	for i := range n {
		weight = Weight(rapid.IntRange(int(weight)+1, int(FullWeight)-n+i+1).Draw(t, "weight"))
		stage := Stage{
			Name: string(rune('a' + i)), Weight: weight,
			Duration:     Duration(rapid.SampledFrom([]time.Duration{0, time.Minute, 20 * time.Minute, 3 * time.Hour}).Draw(t, "duration")),
			MinRequests:  rapid.SampledFrom([]int64{0, 1, 200}).Draw(t, "min_requests"),
			AutoRollback: rapid.Bool().Draw(t, "auto_rollback"),
			Approval:     rapid.SampledFrom([]Approval{ApprovalNone, ApprovalRequired}).Draw(t, "approval"),
			MaxHold:      Duration(rapid.SampledFrom([]time.Duration{0, time.Hour, 24 * time.Hour}).Draw(t, "max_hold")),
			OnHold:       rapid.SampledFrom([]Policy{PolicyPause, PolicyRollback}).Draw(t, "on_hold"),
		}
		if rapid.Bool().Draw(t, "checked") {
			stage.Checks = []string{"error_rate_increase < 0.1"}
		}
		s.Stages = append(s.Stages, stage)
	}
	return s
}

// world is a rollout, the data plane it believes to move, and what an onlooker knows of both.
type world struct {
	*rapid.T
	s   State
	now time.Time

	commands []Command // of the last step
	lastRun  *Run
	sent     []*Route // every route ever sent; an abandoned attempt may come late with any of them
	plane    Weight   // in force on the data plane
	fence    int64    // highest revision the plane has seen
	lost     bool     // another owner took the route
	restored bool     // the last run was a Restore, and it succeeded

	watched  time.Duration // this stage: wall time with a slice in flight and no pause
	reported time.Duration // this stage: the sum of what the slices reported
	requests Requests      // this stage
	bad      bool          // violated for good: only restoring may follow
	waits    bool          // violated, and no human has spoken since
	past     []snapshot
}

// snapshot is a State as it was when it was current.
type snapshot struct {
	state State
	text  string
}

func text(t rapid.TB, v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatalf("marshal: %v", err)
	}
	return string(raw)
}

// step takes one event in and holds the outcome against everything that must always be true.
func (w *world) step(e Event) {
	before := text(w, w.s)
	was := w.s
	w.past = append(w.past, snapshot{was, before})
	next, commands := Step(was, e, w.now)
	if after := text(w, was); after != before {
		w.Fatalf("%T changed the state passed in:\n%s", e, cmp.Diff(before, after))
	}
	var copied State
	if err := json.Unmarshal([]byte(before), &copied); err != nil {
		w.Fatalf("the state can't be read back: %v\n%s", err, before)
	}
	again, commandsAgain := Step(copied, e, w.now)
	if a, b := text(w, next), text(w, again); a != b {
		w.Fatalf("after a round trip through JSON %T leads elsewhere:\n%s", e, cmp.Diff(a, b))
	}
	if a, b := text(w, commands), text(w, commandsAgain); a != b {
		w.Fatalf("after a round trip through JSON %T commands otherwise:\n%s", e, cmp.Diff(a, b))
	}
	w.s, w.commands = next, commands
	w.checkTerminal(was, e)
	w.checkRevision(was, e)
	w.checkBounds()
	w.carryOut(was, e)
}

func (w *world) checkTerminal(was State, e Event) {
	if was.Phase.Terminal() {
		if diff := cmp.Diff(was, w.s); diff != "" || w.commands != nil {
			w.Fatalf("%T moved a rollout that has ended: %v\n%s", e, w.commands, diff)
		}
		return
	}
	finished := slices.ContainsFunc(w.commands, func(c Command) bool { _, ok := c.(Finish); return ok })
	if finished != w.s.Phase.Terminal() {
		w.Fatalf("%T leads to %s, and Finish is %t", e, w.s.Phase, finished)
	}
	if !w.s.Phase.Terminal() {
		return
	}
	if w.s.Reason == "" || w.s.Ended != w.now || !w.s.Task.None() || w.s.Pause != nil || !w.s.Wake.IsZero() {
		w.Fatalf("ended untidily: %s", text(w, w.s))
	}
}

func (w *world) checkRevision(was State, e Event) {
	if w.s.Revision < was.Revision || w.s.NextTask < was.NextTask || w.s.NextNotice < was.NextNotice {
		w.Fatalf("%T took a counter back: %s", e, text(w, w.s))
	}
	if w.s.Observed < 0 {
		w.Fatalf("observed %s", w.s.Observed)
	}
	if w.s.Wake.IsZero() && !w.s.Phase.Terminal() && (w.s.Pause == nil || w.s.Phase != Validating) {
		w.Fatalf("%T leaves %s with nothing to wait for", e, w.s.Phase)
	}
}

func (w *world) checkBounds() {
	if n := len(w.s.Decisions); n > MaxDecisions {
		w.Fatalf("%d decisions", n)
	}
	if n := len(w.s.Series); n > MaxPoints {
		w.Fatalf("%d points", n)
	}
	with := 0
	for _, d := range w.s.Decisions {
		if d.Evidence != nil {
			with++
		}
	}
	if with > MaxEvidence {
		w.Fatalf("%d decisions keep their evidence", with)
	}
}

// carryOut looks at the tasks that a step runs, as an executor would.
func (w *world) carryOut(was State, e Event) {
	if w.s.Phase == Shifting && (was.Phase != Shifting || was.Stage != w.s.Stage) {
		w.watched, w.reported, w.requests = 0, 0, Requests{}
	}
	_, woken := e.(Begin)
	ids := map[string]bool{}
	for _, c := range w.commands {
		switch c := c.(type) {
		case Tell:
			if ids[c.Notice.ID] || c.Notice.Urgency == "" {
				w.Fatalf("notice %+v", c.Notice)
			}
			ids[c.Notice.ID] = true
		case Run:
			w.checkRun(was, c, woken)
			w.lastRun, w.restored = &c, false
			if c.Route != nil {
				w.sent = append(w.sent, c.Route)
			}
			if c.Observe != nil {
				w.sent = append(w.sent, &c.Observe.Route)
			}
			if diff := cmp.Diff(w.s.Task, c.Task); diff != "" {
				w.Fatalf("the state knows another task in flight:\n%s", diff)
			}
		}
	}
	if w.s.Phase.Terminal() && w.s.Phase != Promoted && w.s.Moved && !w.restored && !w.lost {
		w.Fatalf("%s, but the last thing done was %v", w.s.Phase, w.lastRun)
	}
}

func (w *world) checkRun(was State, r Run, woken bool) {
	set := 0
	for _, has := range []bool{r.Route != nil, r.Observe != nil, r.Spec != nil} {
		if has {
			set++
		}
	}
	if set != 1 || r.Summary == "" {
		w.Fatalf("a run with %d inputs: %+v", set, r)
	}
	if w.bad && r.Task.Kind != TaskRestore {
		w.Fatalf("%s after a violation", r.Task.Kind)
	}
	if w.waits && (r.Task.Kind == TaskSetWeight && r.Route.Weight > was.Weight && !woken || r.Task.Kind == TaskFinalize) {
		w.Fatalf("%s while a violation waits for a human", r.Task.Kind)
	}
	if r.Observe != nil {
		if r.Observe.Gate && (w.s.Pause != nil || w.s.Phase != Observing) {
			w.Fatalf("a gate in %s, paused %v", w.s.Phase, w.s.Pause)
		}
		if r.Observe.Slice <= 0 || r.Observe.Slice > Duration(MaxSlice) || r.Observe.Remaining < 0 {
			w.Fatalf("a slice of %s, remaining %s", r.Observe.Slice, r.Observe.Remaining)
		}
	}
	if woken && r.Route != nil && r.Route.Revision != was.Revision {
		w.Fatalf("woken, %s is sent with revision %d after %d", r.Task.Kind, r.Route.Revision, was.Revision)
	}
	if r.Task.Kind == TaskRestore && (r.Route.Weight != 0 || !r.Route.Rollback || r.Route.Promoted) {
		w.Fatalf("restore by %+v", r.Route)
	}
}

// apply is the data plane: it refuses what is older than what it has seen.
func (w *world) apply(r *Route) {
	if r == nil || r.Revision < w.fence {
		return
	}
	w.fence, w.plane = r.Revision, r.Weight
	if r.Promoted {
		w.plane = FullWeight
	}
}

// wait lets time pass, and keeps the onlooker's own account of what was watched.
func (w *world) wait(d time.Duration) {
	if w.s.Phase == Observing && w.s.Pause == nil && w.s.Task.Kind == TaskObserve {
		w.watched += d
	}
	w.now = w.now.Add(d)
}

func (w *world) finishTask() {
	task := w.s.Task
	if task.None() {
		return
	}
	done := TaskDone{ID: task.ID}
	was, requests := w.s, w.requests
	if task.Kind == TaskObserve {
		r := w.anyResult()
		done.Observed = &r
		if w.s.Phase == Observing {
			w.reported += r.Observed.Std()
		}
		requests = requests.Add(r.Requests)
		w.requests = requests
		w.found(r)
	} else if task.Kind == TaskRestore {
		w.apply(w.lastRun.Route)
		w.restored = true
		if w.plane != 0 {
			w.Fatalf("restored, but the canary still has %s", w.plane)
		}
	} else {
		w.apply(w.lastRun.Route)
	}
	watched, reported := w.watched, w.reported // of the stage that this slice belongs to
	w.step(done)
	if done.Observed != nil {
		w.checkObserved(was, *done.Observed, requests, min(watched, reported))
	}
}

// found notes what a slice's finding binds the rollout to.
func (w *world) found(r ObserveResult) {
	switch {
	case r.Finding == FoundSafety, r.Finding == FoundLost,
		r.Finding == FoundViolation && w.s.StageNow().AutoRollback,
		r.Finding == FoundNoData && w.s.Spec.Metrics.OnNoData == PolicyRollback:
		w.bad = true
	case r.Finding == FoundViolation:
		w.waits = true
	}
}

func (w *world) checkObserved(was State, r ObserveResult, requests Requests, observed time.Duration) {
	if w.bad && w.s.Phase != Restoring && w.s.Phase != RestoreBlocked {
		w.Fatalf("%s in %s (paused: %t) leads to %s", r.Finding, was.Phase, was.Pause != nil, w.s.Phase)
	}
	advanced := w.s.Stage > was.Stage || w.s.Phase == Promoting
	if !advanced {
		return
	}
	stage := was.StageNow()
	switch {
	case was.Pause != nil:
		w.Fatalf("advanced while paused")
	case r.Gate != Met:
		w.Fatalf("advanced with the gate %q", r.Gate)
	case r.Frozen != "", r.SourceDown != "", r.PlaneDown != "", r.Mismatch != "":
		w.Fatalf("advanced while frozen %q, source down %q, plane down %q, mismatch %q", r.Frozen, r.SourceDown, r.PlaneDown, r.Mismatch)
	case r.Settling+r.Settles > 0:
		w.Fatalf("advanced while it settles for another %s", r.Settling+r.Settles)
	case requests.Canary < float64(max(1, stage.MinRequests)):
		w.Fatalf("advanced with %v of %d requests", requests.Canary, stage.MinRequests)
	case observed < stage.Duration.Std():
		w.Fatalf("advanced after %s of %s", observed, stage.Duration)
	}
}

// anyResult is what a slice could come back with: never more observed than passed.
func (w *world) anyResult() ObserveResult {
	verdicts := []Verdict{Met, Met, Met, Met, Undecided, NoData, Violated}
	reason := func(name string) string {
		return rapid.SampledFrom([]string{"", "", "", "", "", "", name}).Draw(w.T, name)
	}
	elapsed := w.now.Sub(w.s.Task.Started)
	r := ObserveResult{
		Finding: rapid.SampledFrom([]Finding{
			FoundNothing, FoundNothing, FoundReady, FoundReady, FoundReady, FoundReady, FoundReady, FoundReady, FoundReady, FoundViolation, FoundSafety, FoundNoData, FoundSource, FoundFreeze, FoundDrift, FoundLost, FoundPlane, FoundMismatch,
		}).Draw(w.T, "finding"),
		Reason:   "because",
		Observed: Duration(rapid.SampledFrom([]int64{int64(elapsed), int64(elapsed), int64(elapsed) / 2}).Draw(w.T, "observed")),
		Requests: Requests{Stable: 100, Canary: float64(rapid.IntRange(0, 200).Draw(w.T, "canary"))},
		Verdict:  rapid.SampledFrom(verdicts).Draw(w.T, "verdict"),
		Gate:     rapid.SampledFrom(verdicts).Draw(w.T, "gate"),
		Cursor:   json.RawMessage(`{"v":1}`),
		Evidence: []Evidence{{Check: "error_rate_increase < 0.1", Verdict: Met}},
		Frozen:   reason("frozen"), SourceDown: reason("source"), PlaneDown: reason("plane"), PutBack: reason("put_back"),
		Mismatch: reason("mismatch"), Settling: rapid.SampledFrom([]Duration{0, 0, 0, 0, 0, 0, Duration(time.Second)}).Draw(w.T, "settles"),
	}
	for i := range rapid.IntRange(0, 30).Draw(w.T, "points") {
		r.Series = append(r.Series, Point{At: w.now.Add(time.Duration(i)), Weight: w.s.Weight})
	}
	if r.Finding == FoundViolation || r.Finding == FoundSafety {
		r.Verdict, r.Gate = Violated, Violated
	}
	return r
}

func (w *world) failTask() {
	task := w.s.Task
	if task.None() {
		return
	}
	kinds := []string{ErrInvalidRollout, ErrDriver, "panic"}
	if task.Kind != TaskValidate && task.Kind != TaskFinalize {
		kinds = append(kinds, ErrOwnershipLost)
	}
	kind := rapid.SampledFrom(kinds).Draw(w.T, "error")
	if rapid.Bool().Draw(w.T, "applied all the same") {
		w.apply(w.lastRun.Route) // only the answer was lost
	}
	if task.Kind == TaskRestore && kind == ErrOwnershipLost {
		w.lost = true
	}
	w.step(TaskFailed{ID: task.ID, Type: kind, Reason: "it was refused"})
}

// ask sends a signal, and checks what it must lead to.
func (w *world) ask(signal Signal) {
	was := w.s
	ask := Ask{By: rapid.SampledFrom([]string{"", "ann"}).Draw(w.T, "by"), Full: rapid.Bool().Draw(w.T, "full")}
	if signal == SignalAbort || signal == SignalViolation {
		w.bad = w.bad || !was.Phase.Terminal()
	} else if was.Refusal(signal, ask) == "" && signal != SignalPause {
		w.waits = false
	}
	w.step(Asked{signal, ask})
	if signal == SignalAbort && !was.Phase.Terminal() && w.s.Phase != Restoring && w.s.Phase != RestoreBlocked {
		w.Fatalf("abort in %s leads to %s", was.Phase, w.s.Phase)
	}
}
