// Prometheus' own Kubernetes service discovery as an HTTP one: Debian's Prometheus is built without it. As a pod, by its service account; pods only.
// GET / on the address of its one argument.
package main

import (
	"context"
	"encoding/json"
	"log"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/discovery"
	"github.com/prometheus/prometheus/discovery/kubernetes"
	"github.com/prometheus/prometheus/discovery/targetgroup"
)

type group struct {
	Targets []string       `json:"targets"`
	Labels  model.LabelSet `json:"labels"`
}

func main() {
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	registry := prometheus.NewRegistry()
	metrics, err := discovery.CreateAndRegisterSDMetrics(registry)
	if err != nil {
		log.Fatal(err)
	}
	manager := discovery.NewManager(context.Background(), logger, registry, metrics)
	pods := &kubernetes.SDConfig{Role: kubernetes.RolePod, HTTPClientConfig: config.DefaultHTTPClientConfig}
	if err := manager.ApplyConfig(map[string]discovery.Configs{"pods": {pods}}); err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(manager.Run()) }()
	var current atomic.Pointer[[]byte]
	go func() {
		for found := range manager.SyncCh() {
			text, err := json.Marshal(flatten(found["pods"]))
			if err != nil {
				log.Fatal(err)
			}
			current.Store(&text)
		}
	}()
	log.Fatal(http.ListenAndServe(os.Args[1], http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		text := current.Load()
		if text == nil {
			http.Error(answer, "nothing was discovered yet", http.StatusServiceUnavailable)
			return
		}
		answer.Header().Set("Content-Type", "application/json")
		_, _ = answer.Write(*text)
	})))
}

// A target with all of its labels, where Prometheus has those of the group beside it.
func flatten(found []*targetgroup.Group) []group {
	groups := []group{}
	for _, one := range found {
		for _, target := range one.Targets {
			labels := one.Labels.Merge(target)
			address := string(labels[model.AddressLabel])
			delete(labels, model.AddressLabel)
			groups = append(groups, group{Targets: []string{address}, Labels: labels})
		}
	}
	return groups
}
