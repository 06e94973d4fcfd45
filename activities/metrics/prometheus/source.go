package prometheus

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/api"
	v1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/internal/httpx"
)

// defaultPause is how long to wait when Prometheus is busy and does not say for how long.
const defaultPause = 10 * time.Second

// errTooMuch is the error of a query whose answer is larger than this side, or Prometheus itself, will hold.
var errTooMuch = errors.New("the answer is too large")

// source asks Prometheus, and classifies what goes wrong.
type source struct {
	api     v1.API
	host    string // without secrets
	timeout time.Duration
}

func newSource(s Settings) (*source, error) {
	if h := httpx.Host(s.URL); !strings.HasPrefix(h, "http://") && !strings.HasPrefix(h, "https://") {
		return nil, errors.New("prometheus: the address is no URL, want http://… or https://…")
	}
	client := httpx.NewClient(httpx.Settings{Timeout: s.Timeout, MaxBody: s.MaxBody, TLS: s.TLS, Transport: s.Transport})
	client.Transport = &door{next: client.Transport, token: s.Token}
	c, err := api.NewClient(api.Config{Address: s.URL, Client: client})
	if err != nil {
		return nil, fmt.Errorf("prometheus: %w", httpx.Redact(err))
	}
	return &source{api: v1.NewAPI(c), host: httpx.Host(s.URL), timeout: s.Timeout}, nil
}

// door sends the token along, and keeps what an answer says about coming back, which the API client drops.
type door struct {
	next  http.RoundTripper
	token string
}

func (d *door) RoundTrip(req *http.Request) (*http.Response, error) {
	if d.token != "" {
		req = req.Clone(req.Context())
		req.Header.Set("Authorization", "Bearer "+d.token)
	}
	resp, err := d.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	after := httpx.RetryAfter(resp.Header, time.Now())
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable && after > 0 {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
		resp.Body.Close()
		if after == 0 {
			after = defaultPause
		}
		return nil, &metrics.Busy{RetryAfter: after, Err: fmt.Errorf("prometheus answered %d", resp.StatusCode)}
	}
	return resp, nil
}

// samples are the raw samples that the range selector matches in [at−window, at].
func (s *source) samples(ctx context.Context, matchers string, at, window int64) (model.Matrix, error) {
	value, err := s.query(ctx, fmt.Sprintf("{%s}[%dms]", matchers, window), at)
	if err != nil {
		return nil, err
	}
	matrix, ok := value.(model.Matrix)
	if !ok {
		return nil, fmt.Errorf("ask prometheus at %s: it answered a %s, want a matrix", s.host, value.Type())
	}
	return matrix, nil
}

// vector is an instant query's answer: one sample per series.
func (s *source) vector(ctx context.Context, query string, at int64) (model.Vector, error) {
	value, err := s.query(ctx, query, at)
	if err != nil {
		return nil, err
	}
	switch v := value.(type) {
	case model.Vector:
		return v, nil
	case *model.Scalar:
		return model.Vector{{Value: v.Value, Timestamp: v.Timestamp}}, nil
	}
	return nil, &metrics.Rejected{Reason: fmt.Sprintf("query %q gives a %s, want a number", query, value.Type())}
}

func (s *source) query(ctx context.Context, query string, at int64) (model.Value, error) {
	value, _, _, err := s.api.Query(ctx, query, time.UnixMilli(at), v1.WithTimeout(s.timeout))
	if err != nil {
		return nil, s.classify(query, err)
	}
	return value, nil
}

// classify turns an error of the API client into a *metrics.Busy, a *metrics.Rejected, errTooMuch or a passing fault.
func (s *source) classify(query string, err error) error {
	var busy *metrics.Busy
	if errors.As(err, &busy) {
		return &metrics.Busy{RetryAfter: busy.RetryAfter, Err: fmt.Errorf("ask prometheus at %s: %w", s.host, busy.Err)}
	}
	if errors.Is(err, httpx.ErrBodyTooLarge) {
		return fmt.Errorf("ask prometheus at %s: %w", s.host, errTooMuch)
	}
	var answer *v1.Error
	if !errors.As(err, &answer) {
		return fmt.Errorf("ask prometheus at %s: %w", s.host, httpx.Redact(err))
	}
	text := answer.Msg
	if len(text) > 300 {
		text = text[:300] + "…"
	}
	if answer.Type == v1.ErrExec && strings.Contains(text, "too many samples") {
		return fmt.Errorf("ask prometheus at %s: %w: %s", s.host, errTooMuch, text)
	}
	strange := answer.Type == v1.ErrBadResponse && strings.Contains(text, "unexpected value type") // a string
	if answer.Type == v1.ErrBadData || answer.Type == v1.ErrExec || strange {
		return &metrics.Rejected{Reason: fmt.Sprintf("prometheus at %s refuses the query %q: %s", s.host, query, text)}
	}
	return fmt.Errorf("ask prometheus at %s: %s", s.host, text)
}
