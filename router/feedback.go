package router

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/aviary-rollouts/aviary/router/api"
)

// The response headers or trailers by which an agent reports how a task went. They are attributed to the version that served.
const (
	HeaderTask         = "X-Agent-Task"             // completed or failed
	HeaderSafety       = "X-Agent-Safety-Violation" // its kind
	HeaderSatisfaction = "X-Agent-Satisfaction"
	HeaderTokens       = "X-Agent-Tokens"
	HeaderCost         = "X-Agent-Cost-USD"
	HeaderToolCalls    = "X-Agent-Tool-Calls" // ok=3,error=1
)

// feedbackHeaders are the names as net/http keeps them, so that it need not look for that with every answer.
var feedbackHeaders = func() (names []string) {
	for _, n := range []string{HeaderTask, HeaderSafety, HeaderSatisfaction, HeaderTokens, HeaderCost, HeaderToolCalls, HeaderFingerprint} {
		names = append(names, http.CanonicalHeaderKey(n))
	}
	return names
}()

// FeedbackHeaders are all the headers by which agents talk to the router, rather than to the client, in canonical form. The
// caller must not change them.
func FeedbackHeaders() []string { return feedbackHeaders }

// maxAmount bounds a reported number, so that no report can drown a sum's precision.
const maxAmount = 1e12

// DecodeFeedback reads the body of a feedback: one JSON document without unknown keys.
func DecodeFeedback(raw []byte) (api.Feedback, error) {
	var f api.Feedback
	if err := api.Decode(raw, &f); err != nil {
		return api.Feedback{}, fmt.Errorf("feedback: %w", err)
	}
	return f, CheckFeedback(f)
}

// CheckFeedback refuses numbers that are negative, not finite or absurd, texts that are overlong, outcomes that are not known, and feedback
// that says nothing.
func CheckFeedback(f api.Feedback) error {
	switch {
	case f.Task != "" && f.Task != "completed" && f.Task != "failed":
		return fmt.Errorf("task %.50q: want completed or failed", f.Task)
	case !says(f):
		return errors.New("there is nothing to count: want at least one of task, safety_violation, satisfaction, tokens, cost_usd and tool_calls")
	}
	for _, n := range []struct {
		name  string
		value *float64
	}{{"satisfaction", f.Satisfaction}, {"tokens", f.Tokens}, {"cost_usd", f.CostUSD}} {
		if n.value != nil && !(*n.value >= 0 && *n.value <= maxAmount) {
			return fmt.Errorf("%s %v: want a number from 0 to %g", n.name, *n.value, float64(maxAmount))
		}
	}
	if t := f.ToolCalls; t != nil && (t.OK < 0 || t.Error < 0 || t.OK > maxAmount || t.Error > maxAmount) {
		return fmt.Errorf("tool_calls ok=%d error=%d: want numbers from 0 to %g", t.OK, t.Error, float64(maxAmount))
	}
	for _, s := range []struct{ name, value string }{
		{"id", f.ID}, {"task", f.Task}, {"safety_violation", f.SafetyViolation}, {"conversation", f.Conversation}, {"pin", f.Pin},
	} {
		if len(s.value) > 512 {
			return fmt.Errorf("%s has %d bytes: want at most 512", s.name, len(s.value))
		}
	}
	return nil
}

// says reports whether there is anything to count in f.
func says(f api.Feedback) bool {
	return f.Task != "" || f.SafetyViolation != "" || f.Satisfaction != nil || f.Tokens != nil || f.CostUSD != nil || f.ToolCalls != nil
}

// Feedback counts f for the version it names, by version, pin or conversation. Errors: *Refusal.
func (r *Router) Feedback(f api.Feedback) (api.FeedbackResult, error) {
	if err := CheckFeedback(f); err != nil {
		return api.FeedbackResult{}, &Refusal{Code: api.CodeInvalid, Message: err.Error()}
	}
	named := 0
	for _, s := range []string{f.Version, f.Pin, f.Conversation} {
		if s != "" {
			named++
		}
	}
	if named != 1 {
		return api.FeedbackResult{}, &Refusal{Code: api.CodeInvalid, Message: "want exactly one of version, pin and conversation"}
	}
	r.mu.Lock()
	s := r.agents[f.Agent]
	if s == nil {
		err := r.unknownAgent(f.Agent)
		r.mu.Unlock()
		return api.FeedbackResult{}, err
	}
	version, refusal := r.attribute(s, f)
	stats := r.stats[statsKey{f.Agent, version}]
	if refusal == nil && stats == nil {
		refusal = s.unknownVersion(version)
	}
	r.mu.Unlock()
	if refusal != nil {
		return api.FeedbackResult{}, refusal
	}
	if f.ID != "" && !s.seen.add(xxhash.Sum64String(f.ID)) {
		return api.FeedbackResult{Version: version, Duplicate: true}, nil
	}
	stats.Feedback(f)
	return api.FeedbackResult{Version: version}, nil
}

// attribute finds the version that f is about. The caller holds r.mu.
func (r *Router) attribute(s *agentState, f api.Feedback) (string, *Refusal) {
	switch {
	case f.Version != "":
		return f.Version, nil
	case f.Pin != "":
		c, err := r.keys.open(kindPin, f.Agent, f.Pin, s.versions, r.clock.Wall())
		if err != nil && !errors.Is(err, ErrExpiredToken) {
			return "", &Refusal{Code: api.CodeInvalid, Message: fmt.Sprintf("pin: %v", err)}
		}
		return c.version, nil
	}
	if m, ok := s.recall.get(xxhash.Sum64String(f.Conversation)); ok {
		return m.version, nil
	}
	return "", &Refusal{Code: api.CodeUnknownConversation, Message: "conversation is not remembered: report its pin or its version"}
}

// Served notes that d served a request of the conversation with that key (empty: none), so that feedback can name it and
// Options.StickyMemory keeps it there, and counts the conversation if it begins with it. One that only came to the version,
// because the weight moved or stable was restored, began elsewhere: counted ones divide as the weight says. Not for overrides.
func (r *Router) Served(d *Decision, key string) {
	known := d.Reason == ByPin || d.Reason == ByMemory
	a := r.table.Load().agents[d.Agent]
	if key != "" && a != nil { // nil: taken out meanwhile
		m := memo{version: d.Version, rollout: d.rollout, epoch: d.epoch, expiry: r.clock.Wall().Add(r.pinTTL).Unix()}
		known = a.recall.set(xxhash.Sum64String(key), m) || known
	}
	if !known {
		d.Stats().Conversation()
	}
}

// HeaderFeedback reads the feedback in h, which may be a response's header or trailer. Values that make no sense are left out;
// ok is false if nothing is left.
func HeaderFeedback(h http.Header) (f api.Feedback, ok bool) {
	said := func(i int) string {
		if v := h[feedbackHeaders[i]]; len(v) > 0 {
			return v[0]
		}
		return ""
	}
	f.Task, f.SafetyViolation = bounded(said(0)), bounded(said(1))
	f.Satisfaction, f.Tokens, f.CostUSD = amount(said(2)), amount(said(3)), amount(said(4))
	f.ToolCalls = toolCalls(said(5))
	return f, says(f)
}

func bounded(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 512 {
		return Other
	}
	return s
}

func amount(s string) *float64 {
	if s == "" { // most answers say nothing, and an error costs
		return nil
	}
	v, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	if err != nil || math.IsNaN(v) || v < 0 || v > maxAmount {
		return nil
	}
	return &v
}

func toolCalls(s string) *api.ToolCalls {
	if s == "" {
		return nil
	}
	var t api.ToolCalls
	for part := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 || n > maxAmount {
			return nil
		}
		switch name {
		case "ok":
			t.OK = n
		case "error":
			t.Error = n
		default:
			return nil
		}
	}
	return &t
}
