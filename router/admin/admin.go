// Package admin is the control plane's door to a router.Router: routes, registry, counters and feedback over HTTP.
package admin

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/aviary-rollouts/aviary/router"
	"github.com/aviary-rollouts/aviary/router/api"
)

// The largest bodies that are read, in bytes.
const (
	maxBody     = 256 << 10
	maxFeedback = 16 << 10
)

// Options of a Handler.
type Options struct {
	Token         string       // bearer token of everything under /v1; at least 16 bytes
	FeedbackToken string       // also accepted by /v1/feedback; empty: none
	Ready         func() error // nil or an answer of nil: /readyz says yes
	Logger        *slog.Logger // nil: none
}

type handler struct {
	router   *router.Router
	options  Options
	token    [sha256.Size]byte
	feedback *[sha256.Size]byte
	log      *slog.Logger
}

// New is the admin API of r. /metrics, /healthz and /readyz need no token. Errors: a token that is missing or too short.
func New(r *router.Router, o Options) (http.Handler, error) {
	if len(o.Token) < 16 {
		return nil, fmt.Errorf("admin token has %d bytes: want at least 16", len(o.Token))
	}
	if o.FeedbackToken != "" && len(o.FeedbackToken) < 16 {
		return nil, fmt.Errorf("feedback token has %d bytes: want at least 16, or none", len(o.FeedbackToken))
	}
	h := &handler{router: r, options: o, token: sha256.Sum256([]byte(o.Token)), log: o.Logger}
	if o.FeedbackToken != "" {
		sum := sha256.Sum256([]byte(o.FeedbackToken))
		h.feedback = &sum
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{r.Collector(), collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	metrics := promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelError)})

	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metrics)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, map[string]bool{"ok": true}) })
	mux.HandleFunc("GET /readyz", h.readyz)
	mux.Handle("PUT /v1/routes/{agent}", h.admin(h.putRoute))
	mux.Handle("GET /v1/routes/{agent}", h.admin(h.getRoute))
	mux.Handle("GET /v1/routes", h.admin(h.getRoutes))
	mux.Handle("GET /v1/agents", h.admin(h.getAgents))
	mux.Handle("PUT /v1/agents/{agent}/versions/{version}", h.admin(h.putVersion))
	mux.Handle("DELETE /v1/agents/{agent}/versions/{version}", h.admin(h.deleteVersion))
	mux.Handle("GET /v1/counters", h.admin(h.getCounters))
	mux.Handle("POST /v1/feedback", h.postFeedback())
	return jsonErrors(mux), nil
}

// admin lets fn be called by who has the admin token.
func (h *handler) admin(fn func(http.ResponseWriter, *http.Request) error) http.Handler {
	return h.guarded(maxBody, fn, &h.token)
}

// guarded calls fn for who has one of the tokens, given as hashes, and writes its error.
func (h *handler) guarded(limit int64, fn func(http.ResponseWriter, *http.Request) error, tokens ...*[sha256.Size]byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !authorized(req, tokens) {
			w.Header().Set("WWW-Authenticate", "Bearer")
			answer(w, http.StatusUnauthorized, api.ErrorBody{Code: api.CodeUnauthorized, Error: "want Authorization: Bearer and a valid token"})
			return
		}
		req.Body = http.MaxBytesReader(w, req.Body, limit)
		if err := fn(w, req); err != nil {
			h.refuse(w, req, err)
		}
	})
}

// authorized compares hashes, so that neither the time taken nor the length tells anything about the token.
func authorized(req *http.Request, tokens []*[sha256.Size]byte) bool {
	values := req.Header.Values("Authorization")
	if len(values) != 1 {
		return false
	}
	scheme, given, ok := strings.Cut(values[0], " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return false
	}
	sum := sha256.Sum256([]byte(given))
	match := 0
	for _, t := range tokens {
		if t != nil {
			match |= subtle.ConstantTimeCompare(sum[:], t[:])
		}
	}
	return match == 1
}

func (h *handler) readyz(w http.ResponseWriter, _ *http.Request) {
	if h.options.Ready != nil {
		if err := h.options.Ready(); err != nil {
			answer(w, http.StatusServiceUnavailable, api.ErrorBody{Code: api.CodeNotReady, Error: err.Error()})
			return
		}
	}
	answer(w, http.StatusOK, map[string]bool{"ready": true})
}

func (h *handler) putRoute(w http.ResponseWriter, req *http.Request) error {
	var route api.Route
	if err := decode(req, &route); err != nil {
		return err
	}
	observed, err := h.router.SetRoute(req.PathValue("agent"), route)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, observed)
	return nil
}

func (h *handler) getRoute(w http.ResponseWriter, req *http.Request) error {
	observed, err := h.router.Observed(req.PathValue("agent"))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, observed)
	return nil
}

func (h *handler) getRoutes(w http.ResponseWriter, _ *http.Request) error {
	answer(w, http.StatusOK, api.Routes{Instance: h.router.Instance(), Routes: h.router.AllObserved()})
	return nil
}

func (h *handler) getAgents(w http.ResponseWriter, _ *http.Request) error {
	answer(w, http.StatusOK, api.Agents{Agents: h.router.Agents()})
	return nil
}

func (h *handler) putVersion(w http.ResponseWriter, req *http.Request) error {
	var v api.Version
	if err := decode(req, &v); err != nil {
		return err
	}
	agent, err := h.router.PutVersion(req.PathValue("agent"), req.PathValue("version"), v)
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, agent)
	return nil
}

func (h *handler) deleteVersion(w http.ResponseWriter, req *http.Request) error {
	err := h.router.DeleteVersion(req.PathValue("agent"), req.PathValue("version"))
	var refusal *router.Refusal
	if errors.As(err, &refusal) && refusal.Code == api.CodeUnknownVersion {
		answer(w, http.StatusNotFound, api.ErrorBody{Code: refusal.Code, Error: refusal.Message, Known: refusal.Known})
		return nil
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (h *handler) getCounters(w http.ResponseWriter, req *http.Request) error {
	counters, err := h.router.Counters(req.URL.Query().Get("agent"))
	if err != nil {
		return err
	}
	answer(w, http.StatusOK, counters)
	return nil
}

func (h *handler) postFeedback() http.Handler {
	return h.guarded(maxFeedback, func(w http.ResponseWriter, req *http.Request) error {
		raw, err := io.ReadAll(req.Body)
		if err != nil {
			return err
		}
		f, err := router.DecodeFeedback(raw)
		if err != nil {
			return &router.Refusal{Code: api.CodeInvalid, Message: err.Error()}
		}
		result, err := h.router.Feedback(f)
		if err != nil {
			return err
		}
		answer(w, http.StatusOK, result)
		return nil
	}, &h.token, h.feedback)
}

// errSyntax is a body that is not the JSON it should be.
type errSyntax struct{ err error }

func (e errSyntax) Error() string { return "body: " + e.err.Error() }

// decode reads one JSON document without unknown keys.
func decode(req *http.Request, out any) error {
	raw, err := io.ReadAll(req.Body)
	if err != nil {
		return err
	}
	if err := api.Decode(raw, out); err != nil {
		return errSyntax{err}
	}
	return nil
}

// refuse writes err as an answer.
func (h *handler) refuse(w http.ResponseWriter, req *http.Request, err error) {
	var (
		conflict *api.Conflict
		refusal  *router.Refusal
		syntax   errSyntax
		tooLarge *http.MaxBytesError
	)
	switch {
	case errors.As(err, &conflict):
		answer(w, http.StatusConflict, api.ErrorBody{Code: api.CodeOwnershipLost, Error: conflict.Message,
			Owner: conflict.Owner, Revision: &conflict.Revision})
	case errors.As(err, &refusal):
		answer(w, statusOf(refusal.Code), api.ErrorBody{Code: refusal.Code, Error: refusal.Message, Known: refusal.Known})
	case errors.As(err, &syntax):
		answer(w, http.StatusBadRequest, api.ErrorBody{Code: api.CodeInvalid, Error: syntax.Error()})
	case errors.As(err, &tooLarge):
		answer(w, http.StatusRequestEntityTooLarge, api.ErrorBody{Code: api.CodeTooLarge, Error: fmt.Sprintf("body is larger than %d bytes", tooLarge.Limit)})
	default:
		h.log.Error("admin request not served", "method", req.Method, "path", req.URL.Path, "error", err)
		answer(w, http.StatusInternalServerError, api.ErrorBody{Code: api.CodeInternal, Error: err.Error()})
	}
}

func statusOf(code string) int {
	switch code {
	case api.CodeUnknownAgent, api.CodeUnknownConversation:
		return http.StatusNotFound
	case api.CodeInUse:
		return http.StatusConflict
	default:
		return http.StatusUnprocessableEntity
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body) //nolint:errcheck // whoever asked is gone
}
