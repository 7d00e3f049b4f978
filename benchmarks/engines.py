"""The engines that inference.py compares: each opens a model, reads a prompt, takes a step, and gives logits."""
import json
import os
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from croissant.bits_per_byte import stream_bits, validation_stream
from croissant.export import LlamaCpp, packing
from croissant.int8 import Int8Llama
from croissant.outside import llama_from_gguf, read_gguf
from croissant.packing import Shards
from croissant.tokenizer import Tokenizer

THREADS = 2
OURS, EXACT = "ours, int8", "transformers, float32"


def resident():
    "MiB that this process occupies, as Linux tells it."
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Engine:
    "A model, open; an engine says how it reads a prompt and how it takes a step, and gives the logits of a text."
    def __init__(self, files, how): raise NotImplementedError
    def read(self, prompt, room): raise NotImplementedError
    def step(self, last): raise NotImplementedError
    def logits(self, ids): raise NotImplementedError   # (T, V)
    def weights(self): raise NotImplementedError       # bytes in memory, bytes of the format, and bits of a weight of the embedding, of which a token reads one row

    def turn(self, prompt, n):
        "Seconds until a prompt is read and a token chosen, seconds for n tokens more, and all ids."
        start = time.perf_counter()
        ids = [self.read(prompt, len(prompt) + n + 1)]
        middle = time.perf_counter()
        for _ in range(n): ids.append(self.step(ids[-1]))
        return middle - start, time.perf_counter() - middle, ids

    def ends(self, prompts):
        "Logarithms of the probabilities of what follows each prompt, (N, V)."
        return torch.stack([self.logits(p)[-1].float().log_softmax(-1) for p in prompts]).numpy()

    def resident(self): return resident() - self.before

    def parameters(self): yield torch.zeros(1)         # `stream_bits` asks where the model is

    def token_losses(self, ids, targets):
        "As `Llama.token_losses`, row by row; the sum of every row is kept."
        losses = torch.stack([F.cross_entropy(self.logits(row.tolist()).float(), t, reduction="none") for row, t in zip(ids, targets)])
        self.rows += losses.double().sum(1).tolist()
        return losses

    def quality(self, shards, tokenizer, limit, window):
        "Bits per byte of unseen French and English, and the nats of every window."
        tok, found = Tokenizer.load(tokenizer), {}
        held, lengths = Shards(shards, "validation", tok), np.array([len(tok.token_bytes(i)) for i in range(tok.vocab_size)])
        for part in ("fr", "en"):
            self.rows = []
            found[part] = stream_bits(self, validation_stream(held.tokens(part), tok.bos_id, limit), lengths, tok.bos_id, window) | {"nats": self.rows}
        return found


class Transformers(Engine):
    "The forward pass of transformers with its cache, without the ceremonies of `generate`."
    def __init__(self, files, how):
        from transformers import AutoModelForCausalLM
        self.model = AutoModelForCausalLM.from_pretrained(str(files["folder"]), dtype=getattr(torch, how), attn_implementation="sdpa", local_files_only=True).eval()

    def read(self, prompt, room):
        from transformers import DynamicCache
        self.cache = DynamicCache(config=self.model.config)
        return self.forward(prompt)

    @torch.inference_mode()
    def forward(self, ids): return int(self.model(input_ids=torch.tensor([ids]), past_key_values=self.cache, logits_to_keep=1).logits[0, -1].argmax())
    def step(self, last): return self.forward([last])
    @torch.inference_mode()
    def logits(self, ids): return self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    def weights(self): return *(sum(p.nbytes for p in self.model.parameters()),) * 2, 8 * self.model.dtype.itemsize


class Ours(Engine):
    "The loop of croissant/int8.py."
    def __init__(self, files, how): self.model = Int8Llama.from_folder(files["folder"], how, wide=True)
    def read(self, prompt, room): return int(self.model.prefill(prompt, room)[0].argmax())
    def step(self, last): return int(self.model.step(last)[0].argmax())
    @torch.no_grad()
    def logits(self, ids): return self.model(torch.tensor([ids]))[0]

    def weights(self):
        m = self.model
        floats = m.embedding.nbytes + m.norm.nbytes * (2 * len(m.layers) + 1)
        return m.nbytes, floats + (m.nbytes - floats) // (2 if m.precision == "int8" else 1), 8 * m.embedding.itemsize   # the bytes are kept in two layouts


class LlamaCppEngine(Engine):
    "llama.cpp with its defaults."
    def __init__(self, files, how): self.path, self.unpacked = files[how], None; self.model = LlamaCpp(self.path, exact=False, threads=THREADS)

    def turn(self, prompt, n):
        found = self.model.ask(prompt, n + 1, ignore_eos=True)
        return found["timings"]["prompt_ms"] / 1000, found["timings"]["predicted_ms"] / 1000, found["tokens"]   # its clock starts when the first token is chosen, so the second time is of n

    def ends(self, prompts): return torch.stack([torch.from_numpy(self.model.log_probabilities(p)) for p in prompts]).float().numpy()

    @torch.no_grad()
    def logits(self, ids):
        "Of the file's weights in our own class: the server gives the last position only."
        self.unpacked = self.unpacked or llama_from_gguf(read_gguf(self.path))
        return self.unpacked(torch.tensor([ids]))[0]

    def weights(self):
        table = read_gguf(self.path).tensors["token_embd.weight"]
        return *(sum(r["bytes"] for r in packing(self.path)),) * 2, 8 * int(table.n_bytes) / int(table.n_elements)


class CTranslate2(Engine):
    def __init__(self, files, how):
        import ctranslate2
        self.where, self.pieces = files["ct2"], json.loads((files["ct2"]/"vocabulary.json").read_text(encoding="utf-8"))
        self.model = ctranslate2.Generator(str(self.where), device="cpu", inter_threads=1, intra_threads=THREADS, compute_type=how)

    def turn(self, prompt, n):
        times, ids, start = [], [], time.perf_counter()
        def told(step): times.append(time.perf_counter()); ids.append(step.token_id); return False   # go on
        self.model.generate_batch([[self.pieces[i] for i in prompt]], max_length=n + 1, min_length=n + 1, beam_size=1, sampling_topk=1, include_prompt_in_result=False, end_token=[], callback=told)
        return times[0] - start, times[-1] - times[0], ids

    def logits(self, ids): return torch.from_numpy(np.array(self.model.forward_batch([ids])))[0]
    def weights(self): return *((self.where/"model.bin").stat().st_size,) * 2, 8


class OnnxRuntime(Engine):
    def __init__(self, files, how):
        import onnxruntime_genai
        self.where, self.genai = files["onnx"], onnxruntime_genai
        config = onnxruntime_genai.Config(str(self.where))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": THREADS}}}}))
        self.model = onnxruntime_genai.Model(config)

    def begin(self, ids, room):
        options = self.genai.GeneratorParams(self.model)
        options.set_search_options(max_length=room, min_length=room, do_sample=False, batch_size=1)
        self.generator = self.genai.Generator(self.model, options)
        self.generator.append_tokens(np.array([ids], np.int32))

    def read(self, prompt, room): self.begin(prompt, room); return self.step(None)
    def step(self, last): self.generator.generate_next_token(); return int(self.generator.get_next_tokens()[0])
    def logits(self, ids): self.begin(ids, len(ids) + 1); return torch.from_numpy(self.generator.get_output("logits"))[0].clone()
    def weights(self): return *(sum(p.stat().st_size for p in self.where.glob("model.onnx*")),) * 2, 32


ENGINES = {EXACT: (Transformers, "float32"), "transformers, bfloat16": (Transformers, "bfloat16"), "ours, bfloat16": (Ours, "bfloat16"), OURS: (Ours, "int8"),
           "llama.cpp, F16": (LlamaCppEngine, "f16"), "llama.cpp, Q8_0": (LlamaCppEngine, "q8_0"), "llama.cpp, Q4_K_M": (LlamaCppEngine, "q4_k_m"),
           "ctranslate2, int8": (CTranslate2, "int8"), "onnxruntime-genai, int4": (OnnxRuntime, "int4")}
