// Computes expected.jsonl from cases.txt with Prometheus's own template package:
//
//	go mod init templates && go get github.com/prometheus/prometheus/template@v0.54.1
//	go run . < cases.txt > expected.jsonl
//
// A line of cases.txt is a template, with \n for a line feed.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/template"
)

type result struct {
	Template string `json:"template"`
	Output   string `json:"output"`
	Error    string `json:"error,omitempty"`
}

func query(_ context.Context, q string, _ time.Time) (promql.Vector, error) {
	switch q {
	case "none":
		return nil, nil
	case "bad":
		return nil, errors.New("no such thing")
	}
	return promql.Vector{
		{Metric: labels.FromStrings("__name__", "up", "instance", "b:9100", "job", "node"), F: 1},
		{Metric: labels.FromStrings("__name__", "up", "instance", "a:9100", "job", "node"), F: 0.25},
	}, nil
}

func main() {
	external, _ := url.Parse("http://localhost:9090/prefix")
	defs := "{{$labels := .Labels}}{{$externalLabels := .ExternalLabels}}" +
		"{{$externalURL := .ExternalURL}}{{$value := .Value}}"
	data := template.AlertTemplateData(
		map[string]string{"instance": "node.example.com:9100", "job": "node", "level": "3"},
		map[string]string{"region": "eu"}, external.String(), promql.Sample{F: 1234.5678})
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		text := strings.ReplaceAll(lines.Text(), `\n`, "\n")
		expander := template.NewTemplateExpander(context.Background(), defs+text, "__alert_test", data,
			model.Time(1700000000123), query, external, nil)
		res := result{Template: text}
		if err := expander.ParseTest(); err != nil {
			res.Error = "parse: " + err.Error()
		} else if expanded, err := expander.Expand(); err != nil {
			res.Error = err.Error()
		} else {
			res.Output = expanded
		}
		_ = out.Encode(res)
	}
}
