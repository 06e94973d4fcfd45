package activities_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// TestMismatch: it is found when it begins and when it ends, and holds the gate in between.
func TestMismatch(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	w.share = func(since time.Duration) float64 {
		if since > 2*time.Minute && since <= 20*time.Minute {
			return 0.15
		}
		return 0.05
	}
	first := w.observe(t, r)
	if first.Finding != rollout.FoundMismatch || first.Mismatch == "" || !strings.Contains(first.Reason, "at a weight of 5 %") || w.since() > 5*time.Minute {
		t.Fatalf("found %s (%s) after %s", first.Finding, first.Reason, w.since())
	}
	r.Cursor, r.Mismatch, r.Remaining, r.Requests = first.Cursor, first.Mismatch, 0, first.Requests
	second := w.observe(t, r)
	if second.Finding != rollout.FoundNothing || second.Mismatch == "" || second.Gate != rollout.Undecided {
		t.Errorf("known: found %s, mismatch %q, gate %s", second.Finding, second.Mismatch, second.Gate)
	}
	r.Cursor, r.Slice = second.Cursor, rollout.Duration(time.Hour)
	third := w.observe(t, r)
	if third.Finding != rollout.FoundMismatch || third.Mismatch != "" || !strings.Contains(third.Reason, "agrees") {
		t.Errorf("over: found %s (%s), mismatch %q", third.Finding, third.Reason, third.Mismatch)
	}
}

// TestShareWhileThePlaneIsDown: a share of traffic says nothing of a weight that nobody can read, and says so again once it can be.
func TestShareWhileThePlaneIsDown(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	w.plane = func(since time.Duration) error {
		if since > 2*time.Minute && since <= 20*time.Minute {
			return errors.New("down")
		}
		return nil
	}
	w.share = func(since time.Duration) float64 {
		if since > 2*time.Minute && since <= 20*time.Minute {
			return 0.15
		}
		return 0.05
	}
	r.Slice, r.Gate, r.Route.Lease = rollout.Duration(30*time.Minute), false, 0
	for w.since() < 30*time.Minute {
		got := w.observe(t, r)
		if got.Mismatch != "" || got.Finding == rollout.FoundMismatch {
			t.Fatalf("after %s: found %s (%s), mismatch %q", w.since(), got.Finding, got.Reason, got.Mismatch)
		}
		r.Cursor, r.PlaneDown, r.Slice = got.Cursor, got.PlaneDown, rollout.Duration(30*time.Minute-w.since())
	}
}

// TestMismatchStaysWhileNothingComesIn: a stage that has no numbers yet knows no better than the one before.
func TestMismatchStaysWhileNothingComesIn(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	r.Slice, r.Gate = rollout.Duration(time.Minute), false
	first := w.observe(t, r)
	w.weight, w.revision = 5000, 4
	w.source = func(time.Duration) error { return errors.New("no answer") }
	r.Stage, r.Route.Weight, r.Route.Revision, r.Cursor, r.Mismatch = 1, 5000, 4, first.Cursor, "in doubt"
	if got := w.observe(t, r); got.Mismatch != "in doubt" || got.Gate != rollout.NoData {
		t.Errorf("mismatch %q, gate %s", got.Mismatch, got.Gate)
	}
}

// TestVersionThatChangedUnderItsName: nothing is compared any more that anybody could name.
func TestVersionThatChangedUnderItsName(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	w.changed = []string{"v41"}
	first := w.observe(t, r)
	if first.Finding != rollout.FoundMismatch || !strings.Contains(first.Reason, "v41 changed under its name") || first.Mismatch != first.Reason {
		t.Fatalf("found %s (%s), mismatch %q", first.Finding, first.Reason, first.Mismatch)
	}
	r.Cursor, r.Mismatch, r.Remaining, r.Requests, r.Gate = first.Cursor, first.Mismatch, 0, first.Requests, true
	second := w.observe(t, r)
	if second.Finding != rollout.FoundNothing || second.Mismatch == "" {
		t.Errorf("known: found %s, mismatch %q", second.Finding, second.Mismatch)
	}
}

// TestSomebodyElsesChangeIsNoMismatch: it is known already, and what it did to the share says nothing new.
func TestSomebodyElsesChangeIsNoMismatch(t *testing.T) {
	t.Parallel()
	w, r := newWorld(), request()
	w.weight = 2000
	r.Drifted, r.Gate = true, false
	if got := w.observe(t, r); got.Finding != rollout.FoundNothing || got.Mismatch != "" || compared(t, got) != 6000 {
		t.Errorf("found %s, mismatch %q, %v compared: what it does to users counts", got.Finding, got.Mismatch, compared(t, got))
	}
}
