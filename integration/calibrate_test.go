package integration

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/aviary-rollouts/aviary/analysis/calibration"
)

// Calibration reads a real Prometheus that scrapes a real gateway, which is restarted on the way: every request is counted, once.
func TestCalibrateFromPrometheus(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect(), noWorker: true})
	// The gateway must come back where Prometheus scrapes it.
	proxy, admin := w.gateway.Proxy, w.gateway.Admin
	w.must(w.gateway.Stop())
	w.writeGatewaySettings(proxy, admin)
	w.startGateway()
	address := startPrometheus(t, w.dir, admin)
	file := w.file("rollout.yaml", `
agent: support-agent
stable: v41
canary: v42
metrics: {interval: 1s}
rollback_criteria: {max_safety_violations: 0, max_error_increase: 0.10, max_latency_increase: 0.50}
canary_stages:
  - {name: half, weight: 0.5, duration: 5s}
`)
	calibrate := func(want float64, more ...string) (calibration.Result, error) {
		var r calibration.Result
		out, code := w.starter(append([]string{"calibrate", file, "--prometheus", address, "--last", "30m", "-o", "json"}, more...)...)
		if code != 0 {
			return r, fmt.Errorf("exit code %d: %s", code, out)
		}
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			return r, err
		}
		for _, m := range r.Metrics {
			if m.Trials != want {
				return r, fmt.Errorf("%v trials of %s, want %v", m.Trials, m.Name, want)
			}
		}
		return r, nil
	}

	w.sendAll("support-agent", 137)
	w.eventually("137 requests in Prometheus", func() error {
		_, err := calibrate(137)
		return err
	})
	w.must(w.gateway.Stop())
	w.startGateway()
	w.sendAll("support-agent", 63)
	w.eventually("200 requests in Prometheus", func() error {
		r, err := calibrate(200, "--unit-label", "instance")
		if err == nil && (r.Step != 1 || r.Replays.Used.TakenBack != 0 || len(r.Metrics) != 3) {
			t.Fatalf("result %+v, want polls of 1 s, three metrics, and nothing rolled back", r)
		}
		return err
	})
}
