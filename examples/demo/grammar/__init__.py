"""A synchronous German-English grammar: one meaning, put into words twice.

words/  ->  lexicon  ->  speaker (thinks of something to say)  ->  meaning  ->  german, english
"""
