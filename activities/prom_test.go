package activities_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	. "github.com/aviary-rollouts/aviary/activities"
	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/rollout"
)

func gather(t *testing.T, r prometheus.Gatherer, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(r, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

const watchedNow = `
# HELP aviary_canary_weight Share of traffic that the canary is to have, 0 to 1.
# TYPE aviary_canary_weight gauge
aviary_canary_weight{agent="support-agent"} 0.05
# HELP aviary_phase 1 for the phase of the rollout that this worker is at work for.
# TYPE aviary_phase gauge
aviary_phase{agent="support-agent",phase="observing"} 1
# HELP aviary_poll_age_seconds Time since the metrics source last answered for this agent.
# TYPE aviary_poll_age_seconds gauge
aviary_poll_age_seconds{agent="support-agent"} 35
`

// TestOwnMetrics: what is told of an agent is told while it is watched, and gone afterwards.
func TestOwnMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	w, r := newWorld(), request()
	w.source = func(since time.Duration) error {
		if since > time.Minute {
			return errors.New("connection refused")
		}
		return nil
	}
	agents := []string{"aviary_canary_weight", "aviary_phase", "aviary_poll_age_seconds"}
	looked := false
	w.onWait = func(since time.Duration) {
		if since == 95*time.Second {
			looked = true
			gather(t, registry, watchedNow, agents...)
		}
	}
	config := w.config()
	config.Registerer = registry
	var got rollout.ObserveResult
	if err := (&attempt{name: "Observe"}).run(t, config, r, &got); err != nil {
		t.Fatal(err)
	}
	if !looked || got.Finding != rollout.FoundSource {
		t.Errorf("looked %t, found %s", looked, got.Finding)
	}
	gather(t, registry, "", agents...)
	gather(t, registry, `
# HELP aviary_provider_errors_total Polls that the metrics source did not answer.
# TYPE aviary_provider_errors_total counter
aviary_provider_errors_total{provider="router",target="default"} 4
# HELP aviary_verdicts_total Polls by what the evidence said after them.
# TYPE aviary_verdicts_total counter
aviary_verdicts_total{verdict="met"} 6
aviary_verdicts_total{verdict="no_data"} 1
aviary_verdicts_total{verdict="undecided"} 0
aviary_verdicts_total{verdict="violated"} 0
`, "aviary_verdicts_total", "aviary_provider_errors_total", "aviary_driver_errors_total")
}

func TestCountersOfTasks(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	w := newWorld()
	config := w.config()
	config.Registerer = registry
	config.Notifiers.Log = &notifier{}
	if err := (&attempt{name: "Notify"}).run(t, config, notify.Request{Notice: rollout.Notice{Decision: rollout.Decision{Kind: rollout.DecideRollback}}}, nil); err != nil {
		t.Fatal(err)
	}
	gather(t, registry, `
# HELP aviary_decisions_total Decisions that the humans were told of.
# TYPE aviary_decisions_total counter
aviary_decisions_total{decision="roll_back"} 1
`, "aviary_decisions_total")

	again := prometheus.NewPedanticRegistry()
	config.Registerer = again
	if err := (&attempt{name: "Restore"}).run(t, config, route(), nil); err != nil {
		t.Fatal(err)
	}
	if n, err := testutil.GatherAndCount(again, "aviary_restore_duration_seconds"); n != 1 || err != nil {
		t.Errorf("%d histograms, %v", n, err)
	}
	if _, err := New(config); err == nil {
		t.Error("the same metrics were registered twice")
	}
}
