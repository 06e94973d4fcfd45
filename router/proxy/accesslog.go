package proxy

import (
	"log/slog"
	"math"
	"time"

	"github.com/cespare/xxhash/v2"
)

// maxLogged bounds a text of the client's or an agent's in the access log, in bytes.
const maxLogged = 1024

// logAccess writes the exchange's line of the access log, if there is one. Its query, headers and body stay out of it: they may
// hold tokens, pins and what people say.
func (p *Proxy) logAccess(x *exchange) {
	log := p.options.AccessLog
	if log == nil {
		return
	}
	status, problem := x.ending()
	if status < 500 && problem == "" && !sampled(x.id, p.options.AccessSample) {
		return
	}
	ctx := x.in.Context()
	if !log.Enabled(ctx, slog.LevelInfo) {
		return
	}
	attrs := make([]slog.Attr, 0, 20)
	attrs = append(attrs,
		slog.String("method", clip(x.in.Method)), slog.String("path", clip(x.in.URL.EscapedPath())), slog.Int("status", status),
		slog.Duration("duration", time.Since(x.start)))
	if x.agent != "" {
		attrs = append(attrs, slog.String("agent", x.agent))
	}
	if d := &x.decision; d.Version != "" {
		ttfb := x.first
		if ttfb == 0 {
			ttfb = x.header
		}
		attrs = append(attrs, slog.String("version", d.Version), slog.String("reason", string(d.Reason)),
			slog.String("upstream", x.upstreamHost()), slog.Duration("ttfb", ttfb))
		if d.Bucket >= 0 {
			attrs = append(attrs, slog.Int("bucket", d.Bucket))
		}
		if d.MigratedFrom != "" {
			attrs = append(attrs, slog.String("migrated_from", d.MigratedFrom))
		}
	}
	if x.disbelieved != "" {
		attrs = append(attrs, slog.String("override_ignored", x.disbelieved))
	}
	attrs = append(attrs,
		slog.Int64("bytes_in", x.received.Load()), slog.Int64("bytes_out", x.client.sent.Load()),
		slog.String("client", p.clientAddress(x.in)), slog.String("request_id", x.id), slog.String("proto", x.in.Proto))
	if id := x.traceID(); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	if problem != "" {
		attrs = append(attrs, slog.String("error", clip(problem)))
	}
	log.LogAttrs(ctx, slog.LevelInfo, "request", attrs...)
}

// ending is the status that the client saw, or CodeClientGone if it saw none, and what went wrong, if anything did.
func (x *exchange) ending() (status int, problem string) {
	status = x.client.status
	switch {
	case status != 0:
	case x.upgraded:
		status = x.code
	default:
		status = CodeClientGone
	}
	switch {
	case x.killed.Load():
		return status, "the version was withdrawn"
	case x.client.stalled():
		return status, "the client took nothing of the response for too long"
	case x.refusal != "":
		return status, x.refusal
	case x.problem != nil:
		return status, x.problem.Error()
	case status == CodeClientGone, x.outcome == CodeClientGone:
		return status, "the client went away"
	}
	return status, ""
}

// upstreamHost is the host and port of the instance that was asked last, or "" if none was.
func (x *exchange) upstreamHost() string {
	if x.instance == nil {
		return ""
	}
	return x.instance.URL().Host
}

// sampled reports whether a request is one of the share that is logged. It goes by the request's id, so that gateways in a row
// log the same ones.
func sampled(id string, share float64) bool {
	switch {
	case share >= 1:
		return true
	case !(share > 0):
		return false
	}
	return float64(xxhash.Sum64String(id)) < share*math.MaxUint64
}

func clip(s string) string {
	if len(s) <= maxLogged {
		return s
	}
	return s[:maxLogged] + "…"
}
