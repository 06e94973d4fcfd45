package activities_test

import (
	"errors"
	"testing"
	"time"

	. "github.com/aviary-rollouts/aviary/activities"
	"github.com/aviary-rollouts/aviary/rollout"
)

// TestViolationBeforeTheFirstAnswer: the position is taken before any traffic moves, so a safety violation is found even if the
// source was away when the canary got its first request.
func TestViolationBeforeTheFirstAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.owner, w.revision, w.weight, w.canaries = "", 0, 0, ""
	var valid ValidateResult
	if err := (&attempt{name: "Validate"}).run(t, w.config(), spec(), &valid); err != nil {
		t.Fatal(err)
	}
	w.owner, w.revision, w.weight, w.canaries = owner, 3, 500, "v42"
	w.canary.unsafeFrom = 5 * time.Second
	w.source = func(since time.Duration) error {
		if since < 20*time.Second {
			return errors.New("connection refused")
		}
		return nil
	}
	r := request()
	r.Cursor = valid.Cursor
	if got := w.observe(t, r); got.Finding != rollout.FoundSafety {
		t.Errorf("found %s (%s), want the violation of before the first answer", got.Finding, got.Reason)
	}
	// Without the position of Validate it would have been missed: the control.
	w = newWorld()
	w.owner, w.revision, w.weight = owner, 3, 500
	w.canary.unsafeFrom = 5 * time.Second
	w.source = func(since time.Duration) error {
		if since < 20*time.Second {
			return errors.New("connection refused")
		}
		return nil
	}
	if got := w.observe(t, request()); got.Finding == rollout.FoundSafety {
		t.Error("the control found it too: this test shows nothing")
	}
}

// TestRestoreOutranksItsOwnLaterRoute: a workflow that was reset has an older revision than the data plane. Stable comes first.
func TestRestoreOutranksItsOwnLaterRoute(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.owner, w.revision, w.weight = owner, 9, 5000
	r := route()
	r.Weight, r.Rollback = 0, true
	if err := (&attempt{name: "Restore"}).run(t, w.config(), r, nil); err != nil {
		t.Fatal(err)
	}
	if w.weight != 0 || w.revision <= 9 {
		t.Errorf("weight %s at revision %d", w.weight, w.revision)
	}
	w.owner = "canary/support-agent/0195c1de-0000-7000-8000-00000000000f"
	checkError(t, (&attempt{name: "Restore"}).run(t, w.config(), r, nil), rollout.ErrOwnershipLost, true, 0)
}

// TestFrozenTimeDoesNotCount: what is not judged is not watched.
func TestFrozenTimeDoesNotCount(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.stable.failing, w.canary.failing = 0.9, 0.9
	r := request()
	r.Frozen = "known"
	got := w.observe(t, r)
	if got.Observed > rollout.Duration(time.Minute) || got.Frozen == "" {
		t.Errorf("observed %s of ten frozen minutes (%s, frozen %q)", got.Observed, got.Finding, got.Frozen)
	}
}
