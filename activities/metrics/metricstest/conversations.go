package metricstest

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/rollout"
)

func conversations(p *poller) {
	want := func(got metrics.Samples, stable, canary float64) {
		p.Helper()
		if diff := cmp.Diff(rollout.Requests{Stable: stable, Canary: canary}, got.Conversations); diff != "" {
			p.Errorf("conversations (-want +got):\n%s", diff)
		}
	}
	p.Gateways[0].Begin(Stable, 1000) // before the position
	want(p.poll("error_rate"), 0, 0)
	p.Gateways[0].Begin(Stable, 60)
	p.Gateways[1].Begin(Stable, 30)
	p.Gateways[1].Begin(Canary, 10)
	p.Gateways[1].Serve(Stable, 500, false, time.Second) // turns of conversations that go on
	p.Publish()
	again, err := p.sample(p.request("error_rate"))
	if err != nil {
		p.Fatal(err)
	}
	want(again, 90, 10)
	want(p.poll("error_rate"), 90, 10) // the answer before was lost
	want(p.poll("error_rate"), 0, 0)
	p.Gateways[0].Restart()
	p.Gateways[0].Begin(Canary, 3)
	want(p.poll("error_rate"), 0, 3)
}

// newer: a cursor of a newer build is not a mistake in the rollout, and not to be guessed at.
func newer(p *poller) {
	p.Publish()
	request := p.request("error_rate")
	request.Cursor = json.RawMessage(`{"v":99,"at":"noon","g":7,"gateways":7,"targets":7,"t":7}`) // of other types, too
	_, err := p.sample(request)
	var rejected *metrics.Rejected
	if !errors.Is(err, metrics.ErrNewer) || errors.As(err, &rejected) {
		p.Errorf("error %v, want %v", err, metrics.ErrNewer)
	}
}
