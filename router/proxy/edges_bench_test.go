package proxy

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
)

// BenchmarkEdges is what the ids, the limits on clients and the access log cost a request: all that happens to an exchange but its
// decision and the agent.
func BenchmarkEdges(b *testing.B) {
	r, err := router.New(router.Options{Agents: map[string]router.AgentOptions{
		agent: {Stable: "v41", Versions: map[string]api.Version{"v41": {URL: "http://agent.example"}}},
	}})
	if err != nil {
		b.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	for _, bb := range []struct {
		name    string
		options Options
	}{
		{"ids", Options{NoTrace: true}},
		{"ids and traces", Options{}},
		{"limits", Options{ClientRead: time.Minute, ClientWrite: time.Minute}},
		{"log of nothing", Options{AccessLog: log}},
		{"log of 1%", Options{AccessLog: log, AccessSample: 0.01}},
		{"log of all", Options{AccessLog: log, AccessSample: 1}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			p, err := New(r, bb.options)
			if err != nil {
				b.Fatal(err)
			}
			d, err := r.Decide(agent, router.Request{Key: "any"})
			if err != nil {
				b.Fatal(err)
			}
			req, w := httptest.NewRequest(http.MethodGet, "/agents/support-agent/chat", nil), httptest.NewRecorder()
			b.ReportAllocs()
			for b.Loop() {
				x := &exchange{proxy: p, in: req, start: time.Now(), agent: agent, decision: d}
				x.begin(w)
				x.client.status = http.StatusOK
				x.close()
			}
		})
	}
}
