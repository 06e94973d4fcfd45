package router

import (
	"fmt"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

func register(t testing.TB, r *Router, version string) {
	t.Helper()
	if _, err := r.PutVersion(agent, version, api.Version{URL: "http://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, r *Router, version string) {
	t.Helper()
	if err := r.DeleteVersion(agent, version); err != nil {
		t.Fatal(err)
	}
}

func TestLateFeedbackForADeletedVersion(t *testing.T) {
	t.Parallel()
	r, clock := newTestRouter(t)
	register(t, r, "v50")
	route := canaryRoute(10000, 1)
	route.Canary = "v50"
	mustSet(t, r, route)
	d := mustDecide(t, r, Request{Key: "x"})
	r.Served(&d, "x")
	pin := string(r.AppendPin(nil, &d))
	route.Weight, route.Rollback, route.Revision = 0, true, 2
	mustSet(t, r, route)
	remove(t, r, "v50")

	report := api.Feedback{Agent: agent, Pin: pin, Task: "failed"}
	clock.advance(2*DefaultPinTTL - time.Second)
	r.Tick()
	if got, err := r.Feedback(report); err != nil || got.Version != "v50" || counterOf(t, r, "v50").Tasks.Failed != 1 {
		t.Errorf("the last second: %+v, %v", got, err)
	}
	register(t, r, "v50") // comes back: it goes on counting, and is not forgotten meanwhile
	clock.advance(10 * DefaultPinTTL)
	r.Tick()
	if got, err := r.Feedback(report); err != nil || counterOf(t, r, "v50").Tasks.Failed != 2 {
		t.Errorf("registered again: %+v, %v", got, err)
	}
	remove(t, r, "v50")
	clock.advance(2 * DefaultPinTTL)
	r.Tick()
	if got, err := r.Feedback(report); refusalCode(err) != api.CodeUnknownVersion {
		t.Errorf("long gone: %+v, %v", got, err)
	}
	counters, err := r.Counters(agent)
	if _, there := counters.Versions["v50"]; err != nil || there || len(r.stats) != len(testOptions(t, nil).Agents[agent].Versions) {
		t.Errorf("counters %v (%v), %d in all: want the deleted version's freed", counters.Versions, err, len(r.stats))
	}
}

func TestDeletedVersionsKeepABoundedNumberOfStatistics(t *testing.T) {
	t.Parallel()
	r, clock := newTestRouter(t)
	known := len(r.stats)
	for i := range 3 * maxRetired {
		version := fmt.Sprintf("w%d", i)
		register(t, r, version)
		remove(t, r, version)
		clock.advance(time.Second)
	}
	if len(r.stats) != known+maxRetired || len(r.retired) != maxRetired {
		t.Errorf("%d statistics, %d retired: want %d and %d", len(r.stats), len(r.retired), known+maxRetired, maxRetired)
	}
	for version, want := range map[string]string{fmt.Sprintf("w%d", 2*maxRetired): "", fmt.Sprintf("w%d", 2*maxRetired-1): api.CodeUnknownVersion} {
		if _, err := r.Feedback(api.Feedback{Agent: agent, Version: version, Task: "completed"}); refusalCode(err) != want {
			t.Errorf("feedback for %s: %v, want code %q", version, err, want)
		}
	}
}
