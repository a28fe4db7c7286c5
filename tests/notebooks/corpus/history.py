# %%
1 + 1
# %%
_ * 10
# %%
x = Out[2] + _1
x
# %%
print(In[1], len(In), sorted(Out))
# %%
_3, __, _i1
# %%
print(Out[3], _5)
