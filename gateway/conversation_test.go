package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/internal/crowd"
	"github.com/aviary-rollouts/aviary/router/api"
)

// conversations are live at the same time, behind two replicas.
const conversations = 2000

// pair is two replicas of a gateway, and users whose turns meet either.
type pair struct {
	t        *testing.T
	settings [2]string
	replicas [2]*process
	crowd    *crowd.Crowd
	route    api.Route
}

func newPair(t *testing.T) *pair {
	t.Helper()
	agents := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
	t.Cleanup(agents.Close)
	p := &pair{t: t, crowd: &crowd.Crowd{Conversations: conversations, Turns: 10}}
	for i := range p.replicas {
		p.settings[i] = settingsFile(t, t.TempDir(), agents.URL, "")
		p.replicas[i] = start(t, p.settings[i])
		p.crowd.URLs = append(p.crowd.URLs, "http://"+p.replicas[i].proxy+"/agents/support-agent")
	}
	return p
}

// set gives all replicas the route, with the next revision.
func (p *pair) set(route api.Route) {
	p.t.Helper()
	route.Revision = p.route.Revision + 1
	p.route = route
	for i := range p.replicas {
		p.renew(i)
	}
}

func (p *pair) renew(i int) {
	p.t.Helper()
	if _, err := p.replicas[i].client.PutRoute(p.t.Context(), "support-agent", p.route); err != nil {
		p.t.Fatal(err)
	}
}

// restart stops a replica and starts it again where it was.
func (p *pair) restart(i int) {
	p.t.Helper()
	old := p.replicas[i]
	old.stop()
	old.exit(p.t)
	raw, err := os.ReadFile(p.settings[i])
	if err != nil {
		p.t.Fatal(err)
	}
	raw = bytes.Replace(raw, []byte("\nlisten: 127.0.0.1:0"), []byte("\nlisten: "+old.proxy), 1)
	write(p.t, p.settings[i], string(raw))
	p.replicas[i] = start(p.t, p.settings[i])
}

// round waits until every conversation has had a turn that began after the call.
func (p *pair) round() {
	p.t.Helper()
	const underWay = 2 * 8
	want := p.crowd.Report().Turns + conversations + underWay
	deadline := time.Now().Add(2 * time.Minute)
	for p.crowd.Report().Turns < want {
		if time.Now().After(deadline) {
			p.t.Fatalf("%d turns, want %d", p.crowd.Report().Turns, want)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// talk runs the crowd during fn, and returns what it saw.
func (p *pair) talk(fn func()) crowd.Report {
	p.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.crowd.Run(ctx) }()
	eventually(p.t, "the crowd talks", func() bool { return p.crowd.Report().Turns > 0 })
	fn()
	cancel()
	if err := <-ended; err != nil {
		p.t.Error(err)
	}
	return p.crowd.Report()
}

// TestConversationsStayWhole moves the weight while a replica restarts, and ends the rollout in each way. No conversation may
// change its version, but by a rollback that doesn't let it finish, and then it is told.
func TestConversationsStayWhole(t *testing.T) {
	t.Parallel()
	rollback := func(policy string) api.Route {
		return api.Route{Stable: "v41", Canary: "v42", Owner: "run1", Rollback: true, OnRollback: policy}
	}
	for name, end := range map[string]api.Route{
		"promoted": {Stable: "v42", Owner: "run1", Promoted: true},
		"evict":    rollback(api.Evict), "drain": rollback(api.Drain), "kill": rollback(api.Kill),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair(t)
			withdrawn := name == "evict" || name == "kill"
			policy := end.OnRollback
			moved := 0
			report := p.talk(func() {
				for _, weight := range []int{500, 1500, 5000} {
					p.set(api.Route{Stable: "v41", Canary: "v42", Weight: weight, Owner: "run1", LeaseMillis: 600_000, OnRollback: policy})
					if weight == 1500 {
						p.restart(1)
						p.round() // on a replica that does not know yet whether its canary still has a lease
						p.renew(1)
					}
					p.round()
					p.round()
				}
				moved = p.crowd.Report().Migrated
				p.set(end)
				if withdrawn {
					p.crowd.Forbid("v42")
				}
				p.round()
				p.round()
			})
			for _, s := range append(report.Switched, report.Late...) {
				t.Error(s)
			}
			if moved > 0 {
				t.Errorf("%d conversations were moved before the rollout's end", moved)
			}
			if (report.Migrated > 0) != withdrawn {
				t.Errorf("%d conversations were moved by the end", report.Migrated)
			}
			if report.Begun["v42"] < conversations/20 {
				t.Errorf("only %d of %d conversations began on the canary: this shows nothing", report.Begun["v42"], report.Conversations)
			}
			t.Logf("%d conversations, %d on the canary; %d turns, %d moved, %d sent again", report.Conversations,
				report.Begun["v42"], report.Turns, report.Migrated, report.Retried)
		})
	}
}

// TestLeaseTakesConversationsBackOnAllReplicas is the control plane's death: a second after its last lease's end, the canary
// gets nothing any more, nor do the conversations that began there.
func TestLeaseTakesConversationsBackOnAllReplicas(t *testing.T) {
	t.Parallel()
	const lease = time.Second
	p := newPair(t)
	report := p.talk(func() {
		p.set(api.Route{Stable: "v41", Canary: "v42", Weight: 5000, Owner: "run1", LeaseMillis: lease.Milliseconds()})
		time.Sleep(lease + time.Second) // the promise is about time
		p.crowd.Forbid("v42")
		p.round()
		p.round()
	})
	for _, s := range append(report.Switched, report.Late...) {
		t.Error(s)
	}
	if report.Begun["v42"] == 0 || report.Migrated == 0 {
		t.Errorf("%d conversations began on the canary, %d were taken back: this shows nothing", report.Begun["v42"], report.Migrated)
	}
}
