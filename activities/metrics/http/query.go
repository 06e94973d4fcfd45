package http

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"text/template"
	"time"

	"github.com/ohler55/ojg/jp"
	"golang.org/x/sync/errgroup"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/httpx"
	"github.com/aviary-rollouts/aviary/rollout"
)

// query is a definition, ready to be asked.
type query struct {
	kind   analysis.Kind
	path   *template.Template
	ranged bool   // it asks for what happened in a time
	parts  []part // events and trials, sum and count, or a value
}

// part is a number in the answer.
type part struct {
	text string
	at   jp.Expr
}

// planOf makes queries of what is asked for, by the metrics' names. Errors say what can never be answered.
func planOf(request metrics.Request) (map[string]query, error) {
	for what, name := range map[string]string{"agent": request.Agent, "stable": request.Stable, "canary": request.Canary} {
		if !rollout.ValidName(name) {
			return nil, fmt.Errorf("%s %q: want %s", what, name, rollout.NamePattern)
		}
	}
	plan := map[string]query{}
	for _, m := range request.Metrics {
		if m.Definition == nil {
			if m.Name == analysis.TotalRequests {
				continue // what counts requests is asked for by another name
			}
			return nil, fmt.Errorf("metric %s has no definition, and the provider http has no presets", m.Name)
		}
		q, err := queryOf(m)
		if err != nil {
			return nil, fmt.Errorf("metric %s: %w", m.Name, err)
		}
		plan[m.Name] = q
	}
	return plan, nil
}

func queryOf(m metrics.Metric) (query, error) {
	d := m.Definition
	parts := map[analysis.Kind][]string{
		analysis.Ratio: {d.Events, d.Trials}, analysis.Count: {d.Events, d.Trials}, analysis.Mean: {d.Sum, d.Count}, analysis.Value: {d.Value},
	}[m.Kind]
	if parts == nil {
		return query{}, fmt.Errorf("kind %s can't be had from the provider http", m.Kind)
	}
	if !strings.HasPrefix(d.Query, "/") { // or it could name another host, which would get the token
		return query{}, fmt.Errorf("query %.70q, want a path below the target's address, such as /stats?version={{.Version}}", d.Query)
	}
	path, err := template.New("query").Option("missingkey=error").Parse(d.Query)
	if err != nil {
		return query{}, fmt.Errorf("query: %w", err)
	}
	q := query{kind: m.Kind, path: path, ranged: d.Fills("From")}
	for _, text := range parts {
		at, err := jp.ParseString(text)
		if err != nil {
			return query{}, fmt.Errorf("%q is no JSONPath: %w", text, err)
		}
		q.parts = append(q.parts, part{text, at})
	}
	return q, nil
}

// fill is the query's path and parameters for one version. What is filled in can't become more than one value.
func (q query) fill(agent, version string, from, to time.Time) (string, error) {
	var out bytes.Buffer
	err := q.path.Execute(&out, map[string]string{
		"Agent": url.QueryEscape(agent), "Version": url.QueryEscape(version),
		"From": url.QueryEscape(from.Format(time.RFC3339Nano)), "To": url.QueryEscape(to.Format(time.RFC3339Nano)),
	})
	return out.String(), err
}

// ask asks every query for both versions, each different one once.
func (p *Provider) ask(ctx context.Context, request metrics.Request, plan map[string]query, from, to time.Time) (map[string]numbers, error) {
	paths := map[string]map[string]string{} // by metric and version
	answers := map[string]any{}
	for name, q := range plan {
		paths[name] = map[string]string{}
		for _, version := range []string{request.Stable, request.Canary} {
			path, err := q.fill(request.Agent, version, from, to)
			if err != nil {
				return nil, &metrics.Rejected{Reason: fmt.Sprintf("metric %s: query: %v", name, err)}
			}
			paths[name][version], answers[path] = path, nil
		}
	}
	var mu sync.Mutex
	group, calling := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for path := range answers {
		group.Go(func() error {
			answer, err := p.get(calling, path)
			mu.Lock()
			defer mu.Unlock()
			answers[path] = answer
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	out := map[string]numbers{}
	for name, q := range plan {
		stable, err := q.read(answers[paths[name][request.Stable]])
		if err != nil {
			return nil, fmt.Errorf("metric %s of %s: %w", name, request.Stable, err)
		}
		canary, err := q.read(answers[paths[name][request.Canary]])
		if err != nil {
			return nil, fmt.Errorf("metric %s of %s: %w", name, request.Canary, err)
		}
		out[name] = numbers{stable, canary}
	}
	return out, nil
}

// get asks one query. The error never tells more of the address than its host.
func (p *Provider) get(ctx context.Context, path string) (any, error) {
	fail := func(err error) error { return fmt.Errorf("ask %s: %w", httpx.Host(p.base.String()), httpx.Redact(err)) }
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base.String()+path, nil)
	if err != nil {
		return nil, fail(err)
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "aviary")
	switch s := p.settings; {
	case s.Token == "":
	case s.User != "":
		req.SetBasicAuth(s.User, s.Token)
	case s.TokenHeader != "":
		req.Header.Set(s.TokenHeader, s.Token)
	default:
		req.Header.Set("Authorization", "Bearer "+s.Token)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, fail(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fail(err)
	}
	if err := p.refused(resp); err != nil {
		return nil, err
	}
	var answer any
	if err := json.Unmarshal(text, &answer); err != nil {
		return nil, fail(fmt.Errorf("the answer is no JSON: %w", err))
	}
	return answer, nil
}

// refused is the error for an answer that is not 200. None is final: an API that says 404 today may have been deployed wrongly for an hour.
func (p *Provider) refused(resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	err := fmt.Errorf("ask %s: it answered %d", httpx.Host(p.base.String()), resp.StatusCode)
	pause := httpx.RetryAfter(resp.Header, time.Now())
	switch resp.StatusCode {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if pause == 0 && resp.StatusCode == http.StatusTooManyRequests {
			pause = defaultPause
		}
		if pause > 0 {
			return &metrics.Busy{RetryAfter: pause, Err: err}
		}
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w; is the token of the worker's settings right, and the way it is sent (token_header, user)?", err)
	case http.StatusNotFound, http.StatusBadRequest:
		return fmt.Errorf("%w; is the definition's query right?", err)
	}
	return err
}

// read takes the parts out of an answer.
func (q query) read(answer any) ([]float64, error) {
	out := make([]float64, len(q.parts))
	for i, part := range q.parts {
		x, err := part.read(answer)
		if err != nil {
			return nil, err
		}
		if q.kind != analysis.Value && x < 0 {
			return nil, fmt.Errorf("%s is %v, want 0 or more", part.text, x)
		}
		out[i] = x
	}
	switch {
	case q.kind == analysis.Ratio && out[0] > out[1]:
		return nil, fmt.Errorf("%s is %v and %s %v: more events than trials", q.parts[0].text, out[0], q.parts[1].text, out[1])
	case q.kind == analysis.Mean && out[1] == 0 && out[0] != 0:
		return nil, fmt.Errorf("%s is %v of no observations", q.parts[0].text, out[0])
	}
	return out, nil
}

// read is the one number that the path names.
func (p part) read(answer any) (x float64, err error) {
	defer func() { // a path may ask of an answer what the library has not thought of
		if r := recover(); r != nil {
			err = fmt.Errorf("%s can't be asked of the answer: %v", p.text, r)
		}
	}()
	found := p.at.Get(answer)
	if len(found) != 1 {
		return 0, fmt.Errorf("%s names %d values in the answer, want one", p.text, len(found))
	}
	x, ok := found[0].(float64)
	if !ok {
		return 0, fmt.Errorf("%s is %s, want a number", p.text, kindOf(found[0]))
	}
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, errors.New(p.text + " is not a finite number")
	}
	return x, nil
}

func kindOf(v any) string {
	switch x := v.(type) {
	case nil:
		return "null"
	case string:
		if len(x) > 40 {
			x = strings.ToValidUTF8(x[:40], "") + "…"
		}
		return fmt.Sprintf("the text %q", x)
	case bool:
		return fmt.Sprint(x)
	case []any:
		return "a list"
	}
	return "an object"
}
