"""The translator: corpus, vocabulary, models, training, distillation, scoring."""
