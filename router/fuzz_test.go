package router

import (
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fuzzRing signs one genuine token of each kind, which expire at the same time.
func fuzzRing(f *testing.F) (ring *Keyring, pin, override string, now time.Time) {
	ring = testRing(f, keyA, keyB)
	now = newFakeClock().Wall()
	override = ring.OverrideToken(agent, "v42", now.Add(time.Hour))
	pin = string(ring.appendToken(nil, kindPin, claims{agent: agent, version: "v42", expiry: now.Add(time.Hour).Unix()}))
	for _, s := range []string{"", pin, override, pin[:20], pin + override, "cAFh", "====", "\x00", pin[:8] + "\n" + pin[8:]} {
		f.Add(s)
	}
	return ring, pin, override, now
}

func FuzzPin(f *testing.F) {
	ring, pin, _, now := fuzzRing(f)
	clock := newFakeClock()
	o := testOptions(f, clock)
	o.Keys = ring
	r, err := New(o)
	if err != nil {
		f.Fatal(err)
	}
	mustSet(f, r, canaryRoute(10000, 1))
	f.Fuzz(func(t *testing.T, token string) {
		if c, err := ring.open(kindPin, agent, token, nil, now); err == nil && token != pin {
			t.Errorf("forged: %q gives %+v", token, c)
		} else if err != nil && !errors.Is(err, ErrBadToken) {
			t.Errorf("%q: %v", token, err)
		}
		d, err := r.Decide(agent, Request{Key: "x", Pin: token})
		if err != nil || d.Version != "v42" || (d.Reason == ByPin) != (token == pin) || d.MigratedFrom != "" {
			t.Errorf("%q: %+v, %v", token, d, err)
		}
	})
}

func FuzzOverride(f *testing.F) {
	ring, _, override, now := fuzzRing(f)
	f.Fuzz(func(t *testing.T, token string) {
		v, err := ring.CheckOverride(agent, token, now)
		if (err == nil) != (token == override) || (err == nil) != (v == "v42") {
			t.Errorf("%q gives %q, %v", token, v, err)
		}
		if v, err := ring.CheckOverride("billing-agent", token, now); err == nil {
			t.Errorf("%q gives %q of another agent", token, v)
		}
	})
}

// Whatever a genuine pin says, the conversation is on a version that is registered, and never on a canary that was taken back.
func FuzzGenuinePin(f *testing.F) {
	f.Add("v42", uint64(0), uint64(0), int64(3600), false, 5000)
	f.Add("v41", uint64(1), uint64(9), int64(-1), true, 0)
	f.Add("v99", uint64(1)<<63, uint64(1)<<63, int64(math.MaxInt64), true, 0)
	f.Fuzz(func(t *testing.T, version string, rollout, epoch uint64, life int64, rolledBack bool, weight int) {
		if !validName.MatchString(version) || weight < 0 || weight > Buckets {
			return
		}
		r, clock := newTestRouter(t)
		mustSet(t, r, canaryRoute(weight, 1))
		if rolledBack {
			mustSet(t, r, rollbackRoute(2, ""))
		}
		c := claims{agent: agent, version: version, rollout: rollout, epoch: epoch, expiry: clock.Wall().Unix() + life}
		d := mustDecide(t, r, Request{Key: "x", Pin: string(r.keys.appendToken(nil, kindPin, c))})
		if r.agents[agent].versions[d.Version] == nil || rolledBack && d.Version == "v42" || d.Reason == ByPin && d.Version != version {
			t.Errorf("%+v leads to %+v", c, d)
		}
		if again := mustDecide(t, r, Request{Key: "x", Pin: string(r.AppendPin(nil, &d))}); again.Version != d.Version || again.Reason != ByPin {
			t.Errorf("%+v, and its new pin to %+v", d, again)
		}
	})
}

func FuzzDecodeFeedback(f *testing.F) {
	for _, s := range []string{
		`{"agent":"a","version":"v1","task":"completed","tokens":1}`, `{}`, `{"agent":1}`, `{"tokens":1e999}`, `{"tokens":-1}`, `null`, `[]`,
		`{"tool_calls":{"ok":1,"error":2}}`, `{"x":1}`, `{}{}`, ``, `{"satisfaction":NaN}`,
	} {
		f.Add([]byte(s))
	}
	r, _ := newTestRouter(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := DecodeFeedback(raw)
		if err != nil {
			return
		}
		got.Agent, got.Version, got.Pin, got.Conversation = agent, "v41", "", ""
		if _, err := r.Feedback(got); err != nil {
			t.Fatalf("decoded but refused: %v", err)
		}
		if c := counterOf(t, r, "v41"); math.IsNaN(c.Tokens.Sum) || math.IsInf(c.Tokens.Sum, 0) || len(c.SafetyViolations) > maxKinds+1 {
			t.Fatalf("counters spoilt: %+v", c)
		}
		if _, err := json.Marshal(counterOf(t, r, "v41")); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzHeaderFeedback(f *testing.F) {
	f.Add("completed", "pii", "4.5", "812", "0.01", "ok=3,error=1")
	f.Add(" failed ", "\x00", "NaN", "-1", "1e999", "ok=,error")
	f.Add("", "", "+Inf", "0x1p-2", "1_000", "ok=1,ok=2")
	r, _ := newTestRouter(f)
	d := mustDecide(f, r, Request{Key: "x"})
	f.Fuzz(func(t *testing.T, task, safety, satisfaction, tokens, cost, tools string) {
		h := http.Header{}
		for name, value := range map[string]string{
			HeaderTask: task, HeaderSafety: safety, HeaderSatisfaction: satisfaction, HeaderTokens: tokens, HeaderCost: cost, HeaderToolCalls: tools,
		} {
			h.Set(name, value)
		}
		got, ok := HeaderFeedback(h)
		if err := CheckFeedback(got); err != nil {
			t.Fatalf("read from headers but refused: %v", err)
		}
		if !ok {
			return
		}
		d.Stats().Feedback(got)
		c := counterOf(t, r, "v41")
		if len(c.SafetyViolations) > maxKinds+1 || c.ToolCalls.OK < 0 || c.ToolCalls.Error < 0 {
			t.Fatalf("counters spoilt: %+v", c)
		}
		if _, err := json.Marshal(c); err != nil {
			t.Fatal(err)
		}
	})
}

// A state file is read or refused, and one that is read can be saved and read again.
func FuzzStateFile(f *testing.F) {
	o := testOptions(f, nil)
	o.StateFile = filepath.Join(f.TempDir(), "state.json")
	r, err := New(o)
	if err != nil {
		f.Fatal(err)
	}
	mustSet(f, r, canaryRoute(500, 3))
	mustSet(f, r, rollbackRoute(4, "drain"))
	saved, err := os.ReadFile(o.StateFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(saved)
	f.Add([]byte(`{"format":1,"agents":{"support-agent":{"stable":"v41","epoch":7,"previous_epoch":0,"rollbacks":1}}}`))
	f.Add([]byte(`{"format":2,"agents":{"support-agent":{"stable":"v9","route":{"stable":"v9","canary":"v8","weight":3,"owner":"o"}}}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		o := testOptions(t, newFakeClock())
		o.StateFile = filepath.Join(t.TempDir(), "state.json")
		if err := os.WriteFile(o.StateFile, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := New(o)
		if err != nil {
			return
		}
		mustDecide(t, r, Request{Key: "x"})
		r.Tick()
		register(t, r, "v50") // saves
		if _, err := New(o); err != nil {
			t.Fatalf("saved, but not read: %v", err)
		}
	})
}
