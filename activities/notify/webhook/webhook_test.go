package webhook_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/activities/notify/notifytest"
	"github.com/aviary-rollouts/aviary/activities/notify/webhook"
	"github.com/aviary-rollouts/aviary/rollout"
)

const (
	secret = "shared-secret"
	path   = "/hooks/path-secret"
)

// endpoint is a receiver that keeps to the rules: it verifies, and drops what it has seen.
type endpoint struct {
	t   *testing.T
	url string

	mu      sync.Mutex
	fault   notifytest.Fault
	keys    []string
	notices []rollout.Notice
	release chan struct{}
}

func newEndpoint(t *testing.T) *endpoint {
	e := &endpoint{t: t, release: make(chan struct{})}
	srv := httptest.NewServer(e)
	e.url = srv.URL + path
	t.Cleanup(func() { close(e.release); srv.Close() })
	return e
}

func (e *endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		e.t.Error(err)
	}
	e.mu.Lock()
	fault := e.fault
	e.fault = ""
	e.mu.Unlock()
	switch fault {
	case notifytest.Busy:
		w.Header().Set("Retry-After", strconv.Itoa(int(notifytest.BusyFor.Seconds())))
		w.WriteHeader(http.StatusTooManyRequests)
		return
	case notifytest.Broken:
		w.WriteHeader(http.StatusInternalServerError)
		return
	case notifytest.Hang:
		select {
		case <-e.release:
		case <-r.Context().Done():
		}
		return
	case notifytest.Refused:
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if err := webhook.Verify([]byte(secret), r.Header, body, time.Now(), time.Minute); err != nil {
		e.t.Error(err)
	}
	e.keep(r.Header.Get(webhook.HeaderKey), body)
	if fault == notifytest.Lost {
		// Not by breaking the connection: the transport would send a request with an idempotency key again by itself.
		w.WriteHeader(http.StatusGatewayTimeout)
	}
}

func (e *endpoint) keep(key string, body []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if slices.Contains(e.keys, key) {
		return
	}
	var n rollout.Notice
	if err := json.Unmarshal(body, &n); err != nil {
		e.t.Error(err)
	}
	e.keys = append(e.keys, key)
	e.notices = append(e.notices, n)
}

func receiver(t *testing.T, e *endpoint) notifytest.Receiver {
	n, err := webhook.New(webhook.Settings{URL: e.url, Secret: secret, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	return notifytest.Receiver{
		Notifier: n,
		Address:  func(n *rollout.Notify) { n.Webhook = &rollout.WebhookNotice{Target: "default"} },
		Seen: func() []string {
			e.mu.Lock()
			defer e.mu.Unlock()
			var ids []string
			for _, n := range e.notices {
				ids = append(ids, n.ID)
			}
			return ids
		},
		Fail: func(f notifytest.Fault) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.fault = f
		},
		Secrets: []string{secret, "path-secret"},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	notifytest.Run(t, func(t *testing.T) notifytest.Receiver { return receiver(t, newEndpoint(t)) })
}

func TestStatusCodes(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]string{
		200: "ok", 202: "ok", 204: "ok", 301: "rejected", 400: "rejected", 401: "rejected", 404: "rejected", 410: "rejected",
		408: "passing", 425: "passing", 500: "passing", 502: "passing", 503: "passing", 504: "passing", 429: "busy",
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }))
		n, err := webhook.New(webhook.Settings{URL: srv.URL + path})
		if err != nil {
			t.Fatal(err)
		}
		_, err = n.Notify(t.Context(), notify.Request{Attempt: 1})
		srv.Close()
		if got := kind(err); got != want || (err != nil && strings.Contains(err.Error(), "path-secret")) {
			t.Errorf("%d is %s (%v), want %s", status, got, err, want)
		}
	}
}

func kind(err error) string {
	var busy *notify.Busy
	var rejected *notify.Rejected
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &busy):
		return "busy"
	case errors.As(err, &rejected):
		return "rejected"
	}
	return "passing"
}

func TestNoRedirectToAnotherHost(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var stolen [][]byte
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		stolen = append(stolen, body)
	}))
	t.Cleanup(thief.Close)
	srv := httptest.NewServer(http.RedirectHandler(thief.URL, http.StatusPermanentRedirect))
	t.Cleanup(srv.Close)
	n, err := webhook.New(webhook.Settings{URL: srv.URL, Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Notify(t.Context(), notify.Request{Attempt: 1}); err == nil {
		t.Error("no error for a redirect to another host")
	}
	mu.Lock()
	defer mu.Unlock()
	if len(stolen) > 0 {
		t.Errorf("the other host got %q", stolen)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 0)
	body := []byte(`{"id":"1"}`)
	good := func() http.Header {
		h := http.Header{}
		h.Set(webhook.HeaderTimestamp, "1800000000")
		h.Set(webhook.HeaderSignature, webhook.Sign([]byte(secret), "1800000000", body))
		return h
	}
	for name, tt := range map[string]struct {
		change func(http.Header)
		secret string
		body   []byte
		now    time.Time
		ok     bool
	}{
		"as sent":         {func(http.Header) {}, secret, body, now, true},
		"other secret":    {func(http.Header) {}, "guess", body, now, false},
		"other body":      {func(http.Header) {}, secret, bytes.ToUpper(body), now, false},
		"no signature":    {func(h http.Header) { h.Del(webhook.HeaderSignature) }, secret, body, now, false},
		"no timestamp":    {func(h http.Header) { h.Del(webhook.HeaderTimestamp) }, secret, body, now, false},
		"other timestamp": {func(h http.Header) { h.Set(webhook.HeaderTimestamp, "1800000001") }, secret, body, now, false},
		"replayed later":  {func(http.Header) {}, secret, body, now.Add(time.Hour), false},
	} {
		h := good()
		tt.change(h)
		if err := webhook.Verify([]byte(tt.secret), h, tt.body, tt.now, 5*time.Minute); (err == nil) != tt.ok {
			t.Errorf("%s: error %v, want ok %v", name, err, tt.ok)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"", "example.org/hook", "ftp://user:pw@example.org", "http://user:pw@host:port/"} {
		if _, err := webhook.New(webhook.Settings{URL: address}); err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("%q: error %v, want one without secrets", address, err)
		}
	}
}
