package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	enumspb "go.temporal.io/api/enums/v1"

	"github.com/aviary-rollouts/aviary/rollout"
)

func nothing() {}

func TestWatchWritesALinePerChange(t *testing.T) {
	t.Parallel()
	f := &fake{runs: []*run{observing()}, worker: true, polled: noon}
	r := f.runs[0]
	clock := &script{now: noon, steps: []func(){
		nothing,
		func() { r.status.Verdict = rollout.Met },
		func() { ended(r, rollout.RolledBack, "2 safety violations on the canary, the limit is 0") },
	}}
	got := command(t.Context(), f, clock, nil, "watch", "support-agent")
	if got.code != ExitTakenBack {
		t.Errorf("exit code %d, want %d: %s", got.code, ExitTakenBack, got.err)
	}
	golden(t, "watch_lines", got.out)
}

func TestStartAndFollow(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, flag string
		phase      rollout.Phase
		code       int
		out        []string
	}{
		{"watch promoted", "--watch", rollout.Promoted, ExitDone, []string{"begins, 3 stages, at least 2h30m", "bring v42", "was promoted"}},
		{"watch rolled back", "--watch", rollout.RolledBack, ExitTakenBack, []string{"because", "was rolled back after 0s\n"}},
		{"wait aborted", "--wait", rollout.Aborted, ExitTakenBack, []string{"v42 of support-agent was aborted"}},
		{"wait canceled", "--wait", rollout.Canceled, ExitTakenBack, []string{"was canceled"}},
		{"wait rejected", "--wait", rollout.Rejected, ExitFailed, []string{"was rejected before any traffic moved"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{worker: true, polled: noon}
			clock := &script{now: noon, steps: []func(){
				func() { f.runs[0].decisions = timeline()[:1]; f.runs[0].status.Last = &f.runs[0].decisions[0] },
				func() { ended(f.runs[0], tt.phase, "because") },
			}}
			got := command(t.Context(), f, clock, nil, "start", file(t, good), tt.flag)
			if got.code != tt.code {
				t.Errorf("exit code %d, want %d: %s", got.code, tt.code, got.err)
			}
			has(t, "stdout", got.out, tt.out...)
			if tt.flag == "--wait" && strings.Count(got.out, "\n") != 1 {
				t.Errorf("--wait said more than the end: %s", got.out)
			}
		})
	}
}

func TestInterruptedWatchLeavesTheRolloutRunning(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f := &fake{runs: []*run{observing()}, worker: true, polled: noon}
	got := command(ctx, f, &script{now: noon, steps: []func(){cancel}}, nil, "watch", "support-agent")
	if got.code != ExitFailed || len(f.signals)+len(f.asks) > 0 {
		t.Errorf("exit code %d, asked %v %v", got.code, f.signals, f.asks)
	}
	has(t, "stderr", got.err, "the rollout of support-agent goes on", "starter abort support-agent")
}

func TestWatchSaysThatNobodyAnswers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		polled time.Time
		want   string
	}{
		{"no worker", time.Time{}, "no worker polls task queue aviary"},
		{"a stuck worker", noon, "none answers for this rollout: does it still run?"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{runs: []*run{observing()}, polled: tt.polled}
			var steps []func()
			for range 10 {
				steps = append(steps, nothing)
			}
			clock := &script{now: noon, steps: append(steps, func() { f.worker = true }, func() { ended(f.runs[0], rollout.Promoted, "passed") })}
			got := command(t.Context(), f, clock, nil, "watch", "support-agent")
			if got.code != ExitDone {
				t.Errorf("exit code %d: %s", got.code, got.err)
			}
			if n := strings.Count(got.out, tt.want); n != 1 {
				t.Errorf("%q was said %d times:\n%s", tt.want, n, got.out)
			}
			has(t, "stdout", got.out, "answers again", "was promoted")
		})
	}
}

func TestWatchOutlivesTheServer(t *testing.T) {
	t.Parallel()
	f := &fake{runs: []*run{observing()}, worker: true, polled: noon}
	clock := &script{now: noon, steps: []func(){
		func() { f.down = true }, nothing, func() { f.down = false }, func() { ended(f.runs[0], rollout.Promoted, "passed") },
	}}
	got := command(t.Context(), f, clock, nil, "watch", "support-agent")
	if got.code != ExitDone {
		t.Errorf("exit code %d: %s", got.code, got.err)
	}
	has(t, "stdout", got.out, "Temporal at localhost:7233 does not answer, trying on", "answers again", "was promoted")
}

func TestWatchDoesNotFollowAnotherRollout(t *testing.T) {
	t.Parallel()
	f := &fake{runs: []*run{observing()}, worker: true, polled: noon}
	clock := &script{now: noon, steps: []func(){func() {
		ended(f.runs[0], rollout.RolledBack, "bad")
		next := observing()
		next.runID, next.status.Owner, next.status.Canary = "run-2", "canary/support-agent/run-2", "v43"
		f.runs = append(f.runs, next)
	}}}
	got := command(t.Context(), f, clock, nil, "watch", "support-agent")
	if got.code != ExitTakenBack || strings.Contains(got.out, "v43") {
		t.Errorf("exit code %d: %s", got.code, got.out)
	}
	has(t, "stdout", got.out, "v42 of support-agent was rolled back")
}

func TestWatchOnATerminal(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		env  []string
		args []string
	}{
		{"colour", nil, nil},
		{"NO_COLOR", []string{"NO_COLOR=1"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := &fake{runs: []*run{observing()}, worker: true, polled: noon}
			clock := &script{now: noon, steps: []func(){nothing, func() { ended(f.runs[0], rollout.Promoted, "passed") }}}
			got := command(t.Context(), f, clock, func(p *Process) {
				p.Terminal = func() (int, int, bool) { return 60, 12, true }
				p.Env = append(p.Env, tt.env...)
			}, "watch", "support-agent")
			blocks := strings.Split(got.out, "\x1b[11A\r\x1b[J")
			if len(blocks) != 3 {
				t.Fatalf("%d blocks of 11 lines, want 3: %q", len(blocks), got.out)
			}
			if colour := escapes.MatchString(got.out); colour != (tt.env == nil) {
				t.Errorf("colour is %t", colour)
			}
			has(t, "the first block", blocks[0], "2/4 half")
			has(t, "the last block", blocks[2], "promoted")
			if got := strings.Count(blocks[2], "\n"); got <= 12 {
				t.Errorf("the last block is cut to %d lines", got)
			}
		})
	}
}

func TestWatchForPrograms(t *testing.T) {
	t.Parallel()
	f := &fake{runs: []*run{observing()}, worker: true, polled: noon}
	clock := &script{now: noon, steps: []func(){nothing, func() { ended(f.runs[0], rollout.Promoted, "passed") }}}
	got := command(t.Context(), f, clock, nil, "watch", "support-agent", "-o", "json")
	lines := strings.Split(strings.TrimSpace(got.out), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines, want one per change:\n%s", len(lines), got.out)
	}
	has(t, "the first line", lines[0], `"phase":"observing"`)
	has(t, "the last line", lines[1], `"phase":"promoted"`)
}

func TestStatusHasTheSliceUnderWay(t *testing.T) {
	t.Parallel()
	r := observing()
	at := rollout.Point{At: noon, Weight: 2500, EValue: 99, Values: map[string][2]float64{"error_rate": {0.5, 0.5}}}
	r.heartbeat = map[string]any{"v": 1, "slice": map[string]any{
		"observed": "5m", "requests": rollout.Requests{Stable: 100, Canary: 12}, "series": []rollout.Point{at},
	}}
	s := &session{temporal: &fake{runs: []*run{r}, worker: true}, clock: &script{now: noon}}
	l, err := s.look(t.Context(), "support-agent")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := l.Status.Observed.String(), "23m"; got != want {
		t.Errorf("observed %s, want %s", got, want)
	}
	if diff := cmp.Diff(rollout.Requests{Stable: 4012, Canary: 1300}, l.Status.Requests); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	series := s.view(t.Context(), "support-agent", l).Series
	if diff := cmp.Diff(at, series[len(series)-1]); diff != "" {
		t.Errorf("the last point (-want +got):\n%s", diff)
	}
	r.heartbeat = "something else"
	if l, err = s.look(t.Context(), "support-agent"); err != nil || l.Status.Observed.String() != "18m" {
		t.Errorf("with an unreadable heartbeat: %v, observed %s", err, l.Status.Observed)
	}
}

func TestClosedWithoutAResult(t *testing.T) {
	t.Parallel()
	f := &fake{runs: []*run{observing()}}
	ended(f.runs[0], rollout.Canceled, "the workflow was canceled")
	f.runs[0].how = enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED
	s := &session{temporal: f, clock: &script{now: noon}}
	l, err := s.look(t.Context(), "support-agent")
	if err != nil || l.Status.Phase != rollout.Canceled || l.cutOff() != "" || !l.ended() {
		t.Errorf("canceled: %v, phase %s, cut off %q", err, l.Status.Phase, l.cutOff())
	}
}
