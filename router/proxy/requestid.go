package proxy

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strings"
)

// maxRequestID bounds the request id that a client may choose, in bytes.
const maxRequestID = 128

// requestID is the id that the client gave the request, if it is one that can be logged and sent on: 1 to 128 visible ASCII
// characters, given once. Else it is a new one of 32 hexadecimal digits.
func requestID(given []string) string {
	if len(given) == 1 && visible(given[0]) {
		return given[0]
	}
	var b [16]byte
	random(b[:])
	return hex.EncodeToString(b[:])
}

func visible(id string) bool {
	if id == "" || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// random fills b, whose length is a multiple of 8. The ids must not meet; they need not be secret.
func random(b []byte) {
	for ; len(b) > 0; b = b[8:] {
		binary.LittleEndian.PutUint64(b, rand.Uint64()) //nolint:gosec // not a secret
	}
}

// The fields of a traceparent: version-traceid-parentid-flags, https://www.w3.org/TR/trace-context/#traceparent-header.
const (
	traceparentSize = 55
	traceIDFrom     = 3
	traceIDTo       = 35
	parentIDFrom    = 36
	parentIDTo      = 52
)

const (
	headerTraceparent = "Traceparent"
	headerTracestate  = "Tracestate"
)

// traceparent is the client's traceparent as it came, if it is valid. The proxy makes no spans of its own, so it must not put
// itself between the client's span and the agent's.
func traceparent(h http.Header) (string, bool) {
	v := h[headerTraceparent]
	if len(v) != 1 || !validTraceparent(v[0]) {
		return "", false
	}
	return v[0], true
}

// validTraceparent follows section 3.2.2: a version above 00 may carry more after the flags, set off by a dash.
func validTraceparent(s string) bool {
	if len(s) < traceparentSize || s[2] != '-' || s[traceIDTo] != '-' || s[parentIDTo] != '-' {
		return false
	}
	for _, field := range []string{s[:2], s[traceIDFrom:traceIDTo], s[parentIDFrom:parentIDTo], s[parentIDTo+1 : traceparentSize]} {
		if !lowerHex(field) {
			return false
		}
	}
	if s[:2] == "ff" || zeroDigits(s[traceIDFrom:traceIDTo]) || zeroDigits(s[parentIDFrom:parentIDTo]) {
		return false
	}
	return len(s) == traceparentSize || (s[:2] != "00" && s[traceparentSize] == '-')
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func zeroDigits(s string) bool { return strings.Trim(s, "0") == "" }

// newTraceparent begins a trace. It is marked as sampled, as a request without a traceparent is by the defaults of OpenTelemetry:
// an agent that samples as its parent does would else record nothing.
func newTraceparent() string {
	var ids [24]byte
	for zero(ids[:16]) || zero(ids[16:]) {
		random(ids[:])
	}
	var b [traceparentSize]byte
	copy(b[:], "00-")
	hex.Encode(b[traceIDFrom:], ids[:16])
	b[traceIDTo] = '-'
	hex.Encode(b[parentIDFrom:], ids[16:])
	copy(b[parentIDTo:], "-01")
	return string(b[:])
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// trace reads or begins the request's trace. A traceparent that can't be read ends there, with its tracestate.
func (p *Proxy) trace(x *exchange) {
	parent, ok := traceparent(x.in.Header)
	switch {
	case ok:
		x.traceparent, x.traced = parent, true
	case !p.options.NoTrace:
		x.traceparent = newTraceparent()
	}
}

// traceID is the id of the request's trace, or "".
func (x *exchange) traceID() string {
	if x.traceparent == "" {
		return ""
	}
	return x.traceparent[traceIDFrom:traceIDTo]
}

// markRequest tells the agent the request's id and trace.
func (p *Proxy) markRequest(h http.Header, x *exchange) {
	h[p.names.RequestID] = []string{x.id}
	if !x.traced { // else both pass as they came
		delete(h, headerTracestate)
		delete(h, headerTraceparent)
		if x.traceparent != "" {
			h[headerTraceparent] = []string{x.traceparent}
		}
	}
}
