// Package receiver is a data plane behind Aviary's webhook driver, as small as it can be: it keeps routes in memory, honours leases, and
// says for a key which version is its. It is a sample to begin from, in this language or another; docs/webhook.md is the contract.
package receiver

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// FullWeight is all traffic, in basis points.
const FullWeight = 10000

const (
	tolerance = 5 * time.Minute // how far the sender's clock may be off
	maxBody   = 64 << 10        // of a request, in bytes
)

// Route is what the driver sends: the whole desired state of one agent.
type Route struct {
	Stable      string `json:"stable"`
	Canary      string `json:"canary"`
	Weight      int    `json:"weight"` // basis points
	Owner       string `json:"owner"`
	Revision    int64  `json:"revision"`
	LeaseMillis int64  `json:"lease_ms"` // 0: for ever
	Rollback    bool   `json:"rollback"`
	Promoted    bool   `json:"promoted"`
}

// State is what the driver reads.
type State struct {
	Agent        string   `json:"agent"`
	Stable       string   `json:"stable"`
	Canary       string   `json:"canary"`
	Weight       int      `json:"weight"`
	Effective    int      `json:"effective_weight"`
	Owner        string   `json:"owner"`
	Revision     int64    `json:"revision"`
	LeaseExpired bool     `json:"lease_expired"`
	Versions     []string `json:"versions"`
}

// Receiver keeps the routes. It is safe for concurrent use.
type Receiver struct {
	secret []byte
	log    *slog.Logger
	mux    *http.ServeMux

	mu     sync.Mutex
	agents map[string]*agent
}

// agent is one agent: its route, and until when the canary may have traffic by the local monotonic clock.
type agent struct {
	versions []string
	route    Route
	until    time.Time // zero: for ever
}

// New is a receiver of agents and their versions, whose first is stable. The secret is shared with the worker.
func New(secret []byte, versions map[string][]string, log *slog.Logger) *Receiver {
	r := &Receiver{secret: secret, log: log, mux: http.NewServeMux(), agents: map[string]*agent{}}
	for name, v := range versions {
		r.agents[name] = &agent{versions: v, route: Route{Stable: v[0]}}
	}
	r.mux.HandleFunc("PUT /v1/agents/{agent}/route", r.put)
	r.mux.HandleFunc("GET /v1/agents/{agent}/route", r.get)
	r.mux.HandleFunc("GET /v1/agents", r.list)
	return r
}

// ServeHTTP takes only what somebody who knows the secret has signed.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "the body can't be read: "+err.Error())
		return
	}
	if err := verify(r.secret, req, body, time.Now()); err != nil {
		fail(w, http.StatusUnauthorized, err.Error())
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	r.mux.ServeHTTP(w, req)
}

// verify checks who sent a request, and that nobody sends it again later.
func verify(secret []byte, req *http.Request, body []byte, now time.Time) error {
	stamp := req.Header.Get("X-Aviary-Timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return errors.New("no X-Aviary-Timestamp")
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(stamp + "." + req.Method + " " + req.URL.EscapedPath() + "."))
	mac.Write(body)
	want := "v2=" + hex.EncodeToString(mac.Sum(nil))
	if !hmac.Equal([]byte(want), []byte(req.Header.Get("X-Aviary-Signature"))) {
		return errors.New("the X-Aviary-Signature does not fit")
	}
	if age := now.Sub(time.Unix(seconds, 0)).Abs(); age > tolerance {
		return fmt.Errorf("the request was signed %s from now", age.Round(time.Second))
	}
	return nil
}

func (r *Receiver) put(w http.ResponseWriter, req *http.Request) {
	var want Route
	if err := json.NewDecoder(req.Body).Decode(&want); err != nil {
		fail(w, http.StatusBadRequest, "the body is no route: "+err.Error())
		return
	}
	name := req.PathValue("agent")
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.agents[name]
	if !ok {
		fail(w, http.StatusNotFound, "no agent "+name)
		return
	}
	if reason := a.refuses(want); reason != "" {
		fail(w, http.StatusUnprocessableEntity, reason)
		return
	}
	now := time.Now()
	// After a restart nobody owns the route: whoever comes knows better.
	if owner := a.route.Owner; owner != "" && want.Owner != owner && want.Stable != a.route.Stable && !want.Rollback && !want.Promoted {
		fail(w, http.StatusUnprocessableEntity, fmt.Sprintf("stable is %s, not %s: only a promotion changes it", a.route.Stable, want.Stable))
		return
	}
	if a.holds(want, now) {
		answer(w, http.StatusConflict, map[string]any{"error": "the route is another's, or newer", "owner": a.route.Owner, "revision": a.route.Revision})
		return
	}
	if a.route.Weight != want.Weight || a.route.Stable != want.Stable {
		r.log.Info("route", "agent", name, "stable", want.Stable, "canary", want.Canary, "weight", want.Weight, "owner", want.Owner, "revision", want.Revision)
	}
	a.route, a.until = want, time.Time{}
	if want.LeaseMillis > 0 {
		a.until = now.Add(time.Duration(want.LeaseMillis) * time.Millisecond)
	}
	answer(w, http.StatusOK, a.state(name, now))
}

// refuses says why a route can never be taken.
func (a *agent) refuses(want Route) string {
	known := func(version string) bool { return slices.Contains(a.versions, version) }
	switch {
	case !known(want.Stable), want.Canary != "" && !known(want.Canary):
		return fmt.Sprintf("unknown version, there are %v", a.versions)
	case want.Weight < 0, want.Weight > FullWeight, want.Weight > 0 && want.Canary == "":
		return fmt.Sprintf("weight %d, want 0 to %d, and a canary above 0", want.Weight, FullWeight)
	case want.LeaseMillis < 0, want.Owner == "":
		return "want an owner, and a lease of 0 or more"
	}
	return ""
}

// holds reports whether the route in force is to be kept: it is newer, or of another owner whose canary has traffic or who has replaced the
// one that now wants to end something.
func (a *agent) holds(want Route, now time.Time) bool {
	if want.Owner == a.route.Owner {
		return want.Revision < a.route.Revision
	}
	return a.weight(now) > 0 || a.route.Owner != "" && (want.Rollback || want.Promoted)
}

// weight is the canary's share in force: nothing once the lease has run out.
func (a *agent) weight(now time.Time) int {
	if !a.until.IsZero() && !now.Before(a.until) {
		return 0
	}
	return a.route.Weight
}

func (a *agent) state(name string, now time.Time) State {
	weight := a.weight(now)
	return State{
		Agent: name, Stable: a.route.Stable, Canary: a.route.Canary, Weight: a.route.Weight, Effective: weight, Owner: a.route.Owner,
		Revision: a.route.Revision, LeaseExpired: weight < a.route.Weight, Versions: a.versions,
	}
}

func (r *Receiver) get(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name := req.PathValue("agent")
	a, ok := r.agents[name]
	if !ok {
		fail(w, http.StatusNotFound, "no agent "+name)
		return
	}
	answer(w, http.StatusOK, a.state(name, time.Now()))
}

func (r *Receiver) list(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := []State{}
	for name, a := range r.agents {
		all = append(all, a.state(name, time.Now()))
	}
	answer(w, http.StatusOK, map[string]any{"agents": all})
}

// Choose is the version of a key, such as a conversation's id: the same as long as the weight is, and one that has the canary keeps it
// while the weight rises. Other rollouts have other guinea pigs. Empty: no such agent.
func (r *Receiver) Choose(name, key string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	a, ok := r.agents[name]
	if !ok {
		return ""
	}
	sum := sha256.Sum256([]byte(a.route.Owner + "\x00" + key))
	if binary.BigEndian.Uint64(sum[:8])%FullWeight < uint64(a.weight(time.Now())) { //nolint:gosec // 0 to FullWeight
		return a.route.Canary
	}
	return a.route.Stable
}

func fail(w http.ResponseWriter, status int, text string) {
	answer(w, status, map[string]any{"error": text})
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
