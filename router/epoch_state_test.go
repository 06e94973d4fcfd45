package router

import (
	"os"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
)

func TestVoidPinsStayVoidOverARestart(t *testing.T) {
	t.Parallel()
	o := stateOptions(t)
	r, _ := restart(t, o, 0)
	mustSet(t, r, canaryRoute(10000, 1))
	d := mustDecide(t, r, Request{Key: "x"})
	pin := string(r.AppendPin(nil, &d))
	mustSet(t, r, rollbackRoute(2, api.Evict))
	r, _ = restart(t, o, time.Second)
	mustSet(t, r, canaryRoute(1, 3)) // the same rollout once more
	if d := mustDecide(t, r, Request{Key: "x", Pin: pin}); d.Reason == ByPin {
		t.Errorf("a pin of before the rollback woke up: %+v", d)
	}
}

func TestEpochIsKeptOverARestart(t *testing.T) {
	t.Parallel()
	o := stateOptions(t)
	r, _ := restart(t, o, 0)
	mustSet(t, r, canaryRoute(5000, 1))
	renewal := canaryRoute(5000, 1)
	renewal.Epoch = 7
	if seen := mustSet(t, r, renewal); seen.Epoch != 7 || seen.Revision != 1 {
		t.Errorf("renewed with an epoch: %+v", seen)
	}
	r, _ = restart(t, o, time.Second)
	if seen, err := r.Observed(agent); err != nil || seen.Epoch != 7 {
		t.Errorf("after the restart: %+v, %v", seen, err)
	}
	renewal.Epoch = 0
	mustSet(t, r, renewal)
	if seen := mustSet(t, r, rollbackRoute(2, api.Evict)); seen.Epoch != 8 {
		t.Errorf("after the rollback: %+v", seen)
	}
	renewal.Epoch = maxEpoch + 1
	if _, err := r.SetRoute(agent, renewal); refusalCode(err) != api.CodeInvalid {
		t.Errorf("an epoch beyond the bound: %v", err)
	}
}

func TestStateOfFormat1(t *testing.T) {
	t.Parallel()
	const hash = 13_543_312_345_678_901_234
	for name, tt := range map[string]struct {
		agent string
		epoch uint64
		stays map[string]bool // by the pin's epoch and version
	}{
		"never voided": {`"epoch":0,"previous_epoch":0,"rollbacks":0`, 0, map[string]bool{"old 0 v42": true, "old 0 v40": true, "hash v41": true}},
		"voided": {`"epoch":13543312345678901234,"previous_epoch":0,"rollbacks":1`, 1,
			map[string]bool{"old 0 v42": true, "old 0 v40": false, "old hash v42": false, "old hash v40": false, "hash v41": true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := stateOptions(t)
			route := `"route":{"stable":"v41","canary":"v42","weight":5000,"owner":"canary/support-agent/run1","revision":3,"lease_ms":60000,"on_rollback":"evict"}`
			raw := `{"format":1,"agents":{"support-agent":{"stable":"v41","configured_stable":"v41",` + tt.agent + `,` + route + `}}}`
			if err := os.WriteFile(o.StateFile, []byte(raw), 0o600); err != nil {
				t.Fatal(err)
			}
			r, clock := restart(t, o, 0)
			if seen, err := r.Observed(agent); err != nil || seen.Epoch != tt.epoch || seen.Revision != 3 {
				t.Fatalf("observed %+v, %v; want epoch %d", seen, err, tt.epoch)
			}
			salt := r.table.Load().agents[agent].salt
			pin := func(version string, epoch uint64) string {
				c := claims{agent: agent, version: version, rollout: salt, epoch: epoch, expiry: clock.Wall().Add(time.Hour).Unix()}
				return string(r.keys.appendToken(nil, kindPin, c))
			}
			pins := map[string]string{
				"old 0 v42": pin("v42", 0), "old 0 v40": pin("v40", 0), "old hash v42": pin("v42", hash),
				"old hash v40": pin("v40", hash), "hash v41": pin("v41", hash),
			}
			for name, want := range tt.stays {
				if d := mustDecide(t, r, Request{Key: "x", Pin: pins[name]}); (d.Reason == ByPin) != want {
					t.Errorf("pin %s: %+v, want it honoured: %t", name, d, want)
				}
			}
			mustSet(t, r, rollbackRoute(4, api.Evict)) // and it is saved in the new format
			again, _ := restart(t, o, 0)
			if seen, err := again.Observed(agent); err != nil || seen.Epoch != tt.epoch+1 {
				t.Errorf("after the next rollback and restart: %+v, %v", seen, err)
			}
		})
	}
}

func TestRollbackOfFormat1(t *testing.T) {
	t.Parallel()
	o := stateOptions(t)
	r, _ := restart(t, o, 0)
	mustSet(t, r, canaryRoute(10000, 1))
	d := mustDecide(t, r, Request{Key: "x"})
	pin := string(r.AppendPin(nil, &d))
	raw := `{"format":1,"agents":{"support-agent":{"stable":"v41","configured_stable":"v41","epoch":13543312345678901234,"previous_epoch":0,
		"rollbacks":1,"drain_until":"2026-03-01T12:30:00Z","route":{"stable":"v41","canary":"v42","weight":0,
		"owner":"canary/support-agent/run1","revision":2,"lease_ms":60000,"on_rollback":"drain","rollback":true}}}}`
	if err := os.WriteFile(o.StateFile, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	r, clock := restart(t, o, 0)
	if d := mustDecide(t, r, Request{Key: "x", Pin: pin}); d.Version != "v42" || d.Reason != ByPin {
		t.Errorf("while it drains: %+v", d)
	}
	clock.advance(30 * time.Minute)
	if d := mustDecide(t, r, Request{Key: "x", Pin: pin}); d.Reason == ByPin {
		t.Errorf("past the deadline: %+v", d)
	}
	mustSet(t, r, canaryRoute(1, 3))
	if d := mustDecide(t, r, Request{Key: "x", Pin: pin}); d.Reason == ByPin {
		t.Errorf("a pin of before the rollback woke up: %+v", d)
	}
}
