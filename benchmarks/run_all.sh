#!/usr/bin/env bash
# Makes the numbers of docs/results.md from ../shared/data, and the page. Each step resumes: run it again
# after a stop.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
mkdir -p runs/plans runs/logs

script() { # name, command...
  echo "== $1"
  "$PYTHON" "${@:2}" 2>&1 | tee "runs/logs/$1.txt"
}

script routellm benchmarks/routellm.py
script certificate benchmarks/certificate.py
script coverage benchmarks/coverage.py
script demo benchmarks/plans.py demo
script cfpb_llm benchmarks/plans.py cfpb_llm
script cfpb_o1 benchmarks/plans.py cfpb_llm --as cfpb_o1 --set model=o1 usd_per_m_in=15.0 usd_per_m_out=60.0
script cfpb_ensemble benchmarks/ensemble.py
script mmlu_llama benchmarks/plans.py mmlu_pro_private --as mmlu_llama
script mmlu_phi_gemini benchmarks/plans.py mmlu_pro_private --as mmlu_phi_gemini \
  --set small.model=phi-3-mini model=gemini-1.5-pro
script routellm_mmlu benchmarks/plans.py routellm_mmlu
script round_trip_train benchmarks/pseudonyms/round_trip.py --split train
script round_trip benchmarks/pseudonyms/round_trip.py
script round_trip_all benchmarks/pseudonyms/round_trip.py --all --streams
script gateway_round_trip benchmarks/gateway/round_trip.py
script literals benchmarks/pseudonyms/literals.py
script structured benchmarks/pseudonyms/structured.py
script structured_test benchmarks/pseudonyms/structured.py --split test
script credentials benchmarks/pseudonyms/credentials.py
script credentials_test benchmarks/pseudonyms/credentials.py --split test
script rows benchmarks/pseudonyms/rows.py
script rows_test benchmarks/pseudonyms/rows.py --split test
script technical benchmarks/pseudonyms/technical.py
script technical_test benchmarks/pseudonyms/technical.py --split test
script vectors benchmarks/pseudonyms/vectors.py
script nyc311 benchmarks/plans.py nyc311
script mts_dialog benchmarks/plans.py mts_dialog
"$PYTHON" benchmarks/data/text2sql_defog.py
script text2sql benchmarks/plans.py text2sql_defog
script overhead benchmarks/overhead.py
script host benchmarks/host.py --crossings 1000 --rounds 5
script host_faults benchmarks/host_faults.py --kills 20 --items 1000
script threads benchmarks/threads.py
script jobs benchmarks/jobs.py
script cfpb_labels_dev benchmarks/distil/cfpb_labels.py --dev
script cfpb_labels benchmarks/distil/cfpb_labels.py
for turn in 1 2 3 4 5 6; do "$PYTHON" benchmarks/distil/banking77_texts.py write && break; done
script banking77_dev benchmarks/distil/banking77_texts.py measure --dev
script banking77 benchmarks/distil/banking77_texts.py measure
for turn in 1 2 3 4 5 6; do "$PYTHON" benchmarks/distil/banking77_states.py read --seconds 3600 && break; done
script banking77_states_dev benchmarks/distil/banking77_states.py measure --dev
script banking77_states benchmarks/distil/banking77_states.py measure --arms "trust 0.5" "trust 0"
script codec benchmarks/distil/codec.py --each 6
script output_layer benchmarks/distil/output_layer.py
script private_evolution_write benchmarks/distil/private_evolution.py write --seconds 36000
script private_evolution benchmarks/distil/private_evolution.py measure
script private_evolution_qwen_write benchmarks/distil/private_evolution.py write --model qwen2.5-coder-1.5b-instruct --backend torch --seconds 36000
script private_evolution_qwen benchmarks/distil/private_evolution.py measure --model qwen2.5-coder-1.5b-instruct
script vote_attack benchmarks/distil/vote_attack.py --trials 400
script vote_attack_ideal benchmarks/distil/vote_attack.py --ideal
script membership benchmarks/distil/membership.py
script privacy_book benchmarks/privacy_book.py
script healing benchmarks/healing.py
script text_dp benchmarks/text_dp.py
script pupa benchmarks/pupa.py --items 32 --only large small pseudonym replace-cautious
script pupa_writing benchmarks/pupa.py --items 16 --writing question hide
script split benchmarks/split.py
script upward_attacks benchmarks/upward_attacks.py
echo "== fit"
for ms in 15 7; do
  "$PYTHON" -m cosilo fit smollm2-135m-instruct --ms-per-token "$ms" --memory 1GB --out "runs/fit-$ms" \
    --text ../shared/data/cfpb_raw/train.jsonl 2>&1 | tee "runs/logs/fit-$ms.txt"
done
script guarantee benchmarks/guarantee.py
script votes benchmarks/votes.py
script rerank_draw benchmarks/rerank.py draw runs/rerank.jsonl
script rerank benchmarks/rerank.py choose runs/rerank.jsonl
script rerank_sql benchmarks/rerank_sql.py
script proxy benchmarks/proxy.py
script aggregation benchmarks/aggregation.py
script poisoned benchmarks/poisoned.py
script private_federation benchmarks/private_federation.py
script fedkseed benchmarks/fedkseed.py
script outsiders benchmarks/outsiders.py
script secure_aggregation benchmarks/secure_aggregation.py ours
script secure_aggregation_attacks benchmarks/secure_aggregation.py attacks
script federation_killed benchmarks/federation_killed.py
script forget_killed benchmarks/forget_killed.py
script forget_canaries benchmarks/forget_canaries.py
# These three, and secure_strategies, need `cosilo engines install spu`, and the first the right to make a network namespace.
script secure_bytes benchmarks/secure_bytes.py
script secure_faults benchmarks/secure_faults.py
script sisa benchmarks/sisa.py
script unlearning benchmarks/unlearning.py --cells runs/unlearning
script offset benchmarks/offset.py --seeds 0 1 2 --cells runs/offset
script secure_rows benchmarks/secure_rows.py
script secure_partial benchmarks/secure_partial.py --whole 20 --cut 6
script federated benchmarks/federated.py
script fedcollm benchmarks/fedcollm.py --seeds 0 1 2
script fedmkt benchmarks/fedmkt.py --seeds 0 1 2
script fedpt benchmarks/fedpt.py
script weak_to_strong benchmarks/weak_to_strong.py
script crosslm benchmarks/crosslm.py
script secure_head benchmarks/secure_head.py
script secure_strategies benchmarks/secure_strategies.py --forward 2
script links benchmarks/links.py measure --repeats 6
script leak_limit benchmarks/leak_limit.py
script fusion benchmarks/fusion.py
script speculative_drawn benchmarks/speculative.py drawn
script speculative_pays benchmarks/speculative.py pays
script automix benchmarks/automix.py
script speculative_greedy benchmarks/speculative.py greedy
script across benchmarks/distil/across.py --seconds 36000
script across_report benchmarks/distil/across.py report
script retrieve benchmarks/retrieve.py
script documents_smollm2 benchmarks/documents.py --items 100 --read 100 --minutes 120
# benchmarks/flower.py, federation_killed.py --flower and secure_aggregation.py flower need an environment
# that holds Flower: make flower.
# A GKD step beside TRL's needs an environment that holds TRL too: see docs/results.md.
"$PYTHON" benchmarks/page.py
