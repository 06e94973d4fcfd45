package router_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/activities/metrics/metricstest"
	provider "github.com/aviary-rollouts/aviary/activities/metrics/router"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

func source(t *testing.T) metricstest.Source {
	t.Helper()
	gateways := [2]*metricstest.Gateway{metricstest.NewGateway(t), metricstest.NewGateway(t)}
	client := &http.Client{Transport: &http.Transport{ResponseHeaderTimeout: 2 * time.Second}}
	p, err := provider.New([]string{gateways[0].URL, gateways[1].URL}, metricstest.Token, client)
	if err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	return metricstest.Source{
		Provider: p, Gateways: gateways, Secrets: []string{metricstest.Token},
		Fail: func(f metricstest.Fault) {
			gateways[1].Fail(map[metricstest.Fault]http.HandlerFunc{
				metricstest.Busy: func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Retry-After", strconv.Itoa(int(metricstest.BusyFor.Seconds())))
					w.WriteHeader(http.StatusServiceUnavailable)
				},
				metricstest.Broken: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) },
				metricstest.Hang: func(_ http.ResponseWriter, r *http.Request) {
					select {
					case <-over:
					case <-r.Context().Done():
					}
				},
			}[f])
		},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	metricstest.Run(t, source)
}

func request(cursor json.RawMessage, names ...string) metrics.Request {
	r := metrics.Request{Agent: metricstest.Agent, Stable: metricstest.Stable, Canary: metricstest.Canary, Cursor: cursor}
	for _, name := range names {
		r.Metrics = append(r.Metrics, metrics.Metric{Metric: analysis.Metric{Name: name}})
	}
	return r
}

func TestGoneGatewayIsNamed(t *testing.T) {
	t.Parallel()
	s := source(t)
	first, err := s.Provider.Sample(t.Context(), request(nil, "error_rate"))
	if err != nil {
		t.Fatal(err)
	}
	s.Gateways[0].Serve(metricstest.Canary, 3, false, time.Second)
	s.Gateways[1].Serve(metricstest.Canary, 4, false, time.Second)
	s.Fail(metricstest.Broken)
	if _, err = s.Provider.Sample(t.Context(), request(first.Cursor, "error_rate")); err == nil ||
		!strings.Contains(err.Error(), s.Gateways[1].URL) || strings.Contains(err.Error(), s.Gateways[0].URL) {
		t.Errorf("error %v, want one that names %s alone", err, s.Gateways[1].URL)
	}
	s.Fail(metricstest.Well)
	got, err := s.Provider.Sample(t.Context(), request(first.Cursor, "error_rate"))
	if err != nil || got.Requests.Canary != 7 {
		t.Errorf("%+v, %v, want 7 requests of the canary", got.Requests, err)
	}
}

func TestNewGatewayBeginsAtItsFirstPoll(t *testing.T) {
	t.Parallel()
	s := source(t)
	before, err := provider.New([]string{s.Gateways[0].URL}, metricstest.Token, nil)
	if err != nil {
		t.Fatal(err)
	}
	first, err := before.Sample(t.Context(), request(nil, "error_rate"))
	if err != nil {
		t.Fatal(err)
	}
	s.Gateways[0].Serve(metricstest.Canary, 3, false, time.Second)
	s.Gateways[1].Serve(metricstest.Canary, 1000, false, time.Second) // long before it was named
	second, err := s.Provider.Sample(t.Context(), request(first.Cursor, "error_rate"))
	if err != nil || second.Requests.Canary != 3 {
		t.Fatalf("%+v, %v, want the 3 requests of the gateway known before", second.Requests, err)
	}
	s.Gateways[1].Serve(metricstest.Canary, 5, false, time.Second)
	third, err := s.Provider.Sample(t.Context(), request(second.Cursor, "error_rate"))
	if err != nil || third.Requests.Canary != 5 {
		t.Errorf("%+v, %v, want 5 requests", third.Requests, err)
	}
}

func TestRejections(t *testing.T) {
	t.Parallel()
	s := source(t)
	unknown := request(nil, "error_rate")
	unknown.Agent = "nobody"
	defined := request(nil, "error_rate")
	defined.Metrics[0].Definition = &rollout.Definition{Kind: "ratio"}
	for what, r := range map[string]metrics.Request{"unknown agent": unknown, "a definition": defined} {
		_, err := s.Provider.Sample(t.Context(), r)
		var rejected *metrics.Rejected
		if !errors.As(err, &rejected) {
			t.Errorf("%s: error %v, want *metrics.Rejected", what, err)
		}
	}
	for name, addresses := range map[string][]string{"none": {}, "no URL": {"http://user:pw@host:port"}, "twice": {"http://a:1", "http://user:pw@a:1"}} {
		if _, err := provider.New(addresses, metricstest.Token, nil); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: error %v, want one without secrets", name, err)
		}
	}
}

// An agent that only one of the gateways knows is a mistake that somebody will mend, not a metric that can't be.
func TestAgentUnknownToOne(t *testing.T) {
	t.Parallel()
	s := source(t)
	s.Gateways[1].Fail(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte(`{"code":"unknown_agent","error":"agent is not known"}`))
	})
	_, err := s.Provider.Sample(t.Context(), request(nil, "error_rate"))
	var rejected *metrics.Rejected
	if err == nil || errors.As(err, &rejected) || !strings.Contains(err.Error(), s.Gateways[1].URL) {
		t.Errorf("error %v, want a passing fault that names the gateway", err)
	}
}

func TestDamagedCursors(t *testing.T) {
	t.Parallel()
	s := source(t)
	first, err := s.Provider.Sample(t.Context(), request(nil, "p95_latency"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range first.Cursor {
		damaged := append(json.RawMessage(nil), first.Cursor...)
		damaged[i] ^= 0x15
		_, err := s.Provider.Sample(t.Context(), request(damaged, "p95_latency"))
		var rejected *metrics.Rejected
		if err != nil && !errors.As(err, &rejected) {
			t.Fatalf("cursor %s: error %v, want none or *metrics.Rejected", damaged, err)
		}
	}
	got, err := s.Provider.Sample(t.Context(), request(json.RawMessage("null"), "p95_latency"))
	if err != nil || !cmp.Equal(got.Requests, rollout.Requests{}) {
		t.Errorf("cursor null: %+v, %v, want a position", got.Requests, err)
	}
}

// TestCursorFromBeforeConversations: a rollout in flight goes on over an upgrade; conversations count from the poll after it on.
func TestCursorFromBeforeConversations(t *testing.T) {
	t.Parallel()
	s := source(t)
	s.Gateways[0].Begin(metricstest.Canary, 100)
	first, err := s.Provider.Sample(t.Context(), request(nil, "error_rate"))
	if err != nil {
		t.Fatal(err)
	}
	var old map[string]any
	if err := json.Unmarshal(first.Cursor, &old); err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, position := range old["g"].(map[string]any) {
		for _, version := range []string{"s", "c"} {
			marks := position.(map[string]any)[version].(map[string]any)
			if _, ok := marks["conversations"]; ok {
				delete(marks, "conversations")
				left++
			}
		}
	}
	before, err := json.Marshal(old)
	if err != nil || left != 4 {
		t.Fatalf("%d marks left out of %s (%v), want 4", left, first.Cursor, err)
	}
	s.Gateways[0].Begin(metricstest.Canary, 7)
	s.Gateways[0].Serve(metricstest.Canary, 9, false, time.Second)
	second, err := s.Provider.Sample(t.Context(), request(before, "error_rate"))
	if err != nil || second.Conversations != (rollout.Requests{}) || second.Requests.Canary != 9 {
		t.Fatalf("%+v, %+v, %v, want 9 requests and no conversations", second.Requests, second.Conversations, err)
	}
	s.Gateways[0].Begin(metricstest.Canary, 5)
	third, err := s.Provider.Sample(t.Context(), request(second.Cursor, "error_rate"))
	if err != nil || third.Conversations.Canary != 5 {
		t.Errorf("%+v, %v, want 5 conversations", third.Conversations, err)
	}
}
